//! A service that takes what a server sends it: it notes each request and answers 200, or as it is told.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Its path.
    pub path: String,
    /// Its headers; their names in lower case.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// A service on a free port of this machine.
pub struct Sink {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

struct Seen {
    hits: Mutex<Vec<Hit>>,
    count: watch::Sender<usize>,
    answers: Mutex<VecDeque<u16>>,
}

impl Sink {
    /// Listens.
    ///
    /// # Panics
    ///
    /// There is no port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Seen {
            hits: Mutex::default(),
            count: watch::Sender::new(0),
            answers: Mutex::default(),
        });
        let of_task = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&of_task);
                // Whoever hangs up has got what it gets.
                tokio::spawn(async move { drop(serve(stream, &seen).await) });
            }
        });
        Self { url, seen, task }
    }

    /// The statuses of the next answers.
    pub fn answer(&self, statuses: &[u16]) {
        let mut answers = self.seen.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.extend(statuses);
    }

    /// What came so far.
    pub fn hits(&self) -> Vec<Hit> {
        self.seen.hits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        *self.seen.count.borrow()
    }

    /// Waits until as many requests have come.
    ///
    /// # Panics
    ///
    /// They do not come within `patience`.
    pub async fn wait(&self, count: usize, patience: Duration) -> Vec<Hit> {
        let mut seen = self.seen.count.subscribe();
        let waited = tokio::time::timeout(patience, seen.wait_for(|seen| *seen >= count)).await;
        assert!(waited.is_ok(), "{} of {count} requests came in {patience:?}", self.count());
        self.hits()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers the requests of a connection until it ends.
async fn serve(stream: TcpStream, seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or_default()];
        stream.read_exact(&mut body).await?;
        let answer = seen.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let hits = {
            let mut hits = seen.hits.lock().unwrap_or_else(PoisonError::into_inner);
            hits.push(Hit { path, headers, body });
            hits.len()
        };
        seen.count.send_replace(hits);
        let status = answer.unwrap_or(200);
        let answer = format!("HTTP/1.1 {status} told\r\ncontent-length: 2\r\n\r\nok");
        stream.write_all(answer.as_bytes()).await?;
    }
}
