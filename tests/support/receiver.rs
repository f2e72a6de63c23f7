//! Somebody who receives webhooks, well or badly.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What a receiver answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This status.
    Status(u16),
    /// This status with a further header line.
    With(u16, String),
    /// These bytes, whatever they are, and the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, for as long as the other side waits.
    Silence,
    /// 200, and a body that does not end.
    Endless,
    /// 200, and a body that brings a byte now and then.
    Drip,
}

/// A request that came.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The headers, their names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A receiver on a free port of this machine; gone when dropped.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    count: AtomicUsize,
    /// Kept up to a bound, for a look at them.
    received: Mutex<Vec<Received>>,
    reply: Box<dyn Fn(usize) -> Reply + Send + Sync>,
}

/// More are only counted.
const RECEIVED_MAX: usize = 10_000;

impl Receiver {
    /// A receiver that answers the request of each number, from 0, as `reply` says.
    ///
    /// # Panics
    ///
    /// There is no free port.
    pub async fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", reply).await
    }

    /// As [`start`](Self::start), at an address.
    ///
    /// # Panics
    ///
    /// It is taken.
    pub async fn start_at(
        address: &str,
        reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("it has an address");
        let (count, received) = (AtomicUsize::new(0), Mutex::default());
        let state = Arc::new(State { count, received, reply: Box::new(reply) });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&shared)));
            }
        });
        Self { address, state, task }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.state.count.load(Ordering::Relaxed)
    }

    /// The first requests that came.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many requests have come.
    ///
    /// # Panics
    ///
    /// They do not come within `time`.
    pub async fn until(&self, count: usize, time: Duration) {
        let looks = async {
            while self.count() < count {
                sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(timeout(time, looks).await.is_ok(), "{} of {count} requests came", self.count());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers the requests of one connection.
async fn serve(mut socket: TcpStream, state: Arc<State>) {
    let mut bytes = Vec::new();
    while let Some(received) = read(&mut socket, &mut bytes).await {
        {
            let mut all = state.received.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() < RECEIVED_MAX {
                all.push(received);
            }
        }
        let number = state.count.fetch_add(1, Ordering::Relaxed);
        let reply = (state.reply)(number);
        if answer(&mut socket, reply).await.is_none() {
            return;
        }
    }
}

/// Writes an answer; `None` if the connection ends with it.
async fn answer(socket: &mut TcpStream, reply: Reply) -> Option<()> {
    let (status, header) = match reply {
        Reply::Status(status) => (status, "x-header: 1".to_owned()),
        Reply::With(status, header) => (status, header),
        Reply::Raw(bytes) => {
            // The other side may have gone.
            let _ = socket.write_all(&bytes).await;
            return None;
        }
        Reply::Silence => {
            let _ = socket.read_u8().await;
            return None;
        }
        Reply::Endless => {
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
            while socket.write_all(&[b'x'; 65_536]).await.is_ok() {}
            return None;
        }
        Reply::Drip => {
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
            while socket.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
            return None;
        }
    };
    let text = format!("HTTP/1.1 {status} X\r\n{header}\r\ncontent-length: 2\r\n\r\nok");
    socket.write_all(text.as_bytes()).await.ok()
}

/// Reads one request; `None` at the end.
async fn read(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Received> {
    loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
            let headers: HashMap<String, String> = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").and_then(|text| text.parse().ok());
            let all = end + 4 + length.unwrap_or(0);
            if let Some(body) = bytes.get(end + 4..all) {
                let received = Received { headers, body: body.to_vec() };
                bytes.drain(..all);
                return Some(received);
            }
        }
        if socket.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}
