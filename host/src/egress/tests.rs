//! What is refused, and what a receiver may do to us.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use async_trait::async_trait;
use stream_storage::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::lock::lock;

/// Names that have these addresses, one answer after the other; the last one stays.
#[derive(Default)]
struct Names {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    fn with(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        let of = |(name, answers): &(&str, &[&[&str]])| {
            ((*name).to_owned(), answers.iter().map(parse).collect())
        };
        Arc::new(Self {
            answers: Mutex::new(names.iter().map(of).collect()),
            asked: Mutex::default(),
        })
    }

    fn asked(&self) -> usize {
        lock(&self.asked).len()
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        lock(&self.asked).push(name.to_owned());
        let mut all = lock(&self.answers);
        let Some(answers) = all.get_mut(name) else {
            return Err(io::Error::other("no such name"));
        };
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

fn egress(allow: &str, names: &Arc<Names>) -> Egress {
    let allow = AllowList::parse(allow).unwrap();
    let names = Arc::clone(names) as Arc<dyn Resolver>;
    Egress::with_resolver(allow, Arc::new(SystemClock), names).unwrap()
}

fn post(url: &str) -> Outbound {
    Outbound {
        method: Method::POST,
        url: url.to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        timeout: Duration::from_secs(5),
        answer_bytes_max: 1_024,
    }
}

/// Answers each connection with `answer`, then keeps it open until the other side goes.
struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    async fn start(ip: &str, answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::with(ip, move |mut socket| {
            let answer = Arc::clone(&answer);
            async move {
                // Whoever asks may go before the end.
                let _ = socket.write_all(&answer).await;
                let _ = socket.read_u8().await;
            }
        })
        .await
    }

    async fn with<F>(ip: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4_096];
                let read = socket.read(&mut head).await.unwrap();
                lock(&seen).push(String::from_utf8_lossy(&head[..read]).into_owned());
                tokio::spawn(serve(socket));
            }
        });
        Self { address, requests, task }
    }

    fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Addresses that say themselves where they lead.
const HOSTILE_URLS: &[&str] = &[
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://0x7f.1/",
    "http://127.0.0.1./",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://100.100.100.200/latest/meta-data",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xA9FEA9FE/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::8.8.8.8]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::1]/",
    "http://[2001:0:53aa:64c:0:0:80ff:fffe]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[100::1]/",
    "http://[4000::1]/",
    // Other signs for the same digits and dots.
    "http://127\u{3002}0\u{3002}0\u{3002}1/",
    "http://127\u{ff0e}0\u{ff0e}0\u{ff61}1/",
    "http://\u{2460}\u{2461}\u{2466}.\u{24ea}.\u{24ea}.\u{2460}/",
    "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
    "http://%31%32%37.0.0.1/",
    // Who reads it otherwise than we do.
    "http://example.com@127.0.0.1/",
    "http://example.com:80@127.0.0.1/",
    "http://user:secret@example.com/",
    "http://127.0.0.1#@example.com/",
    "http://127.0.0.1?@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http:\\\\127.0.0.1/",
    "http://exam\nple.com/",
    "http://example.com /",
    "\thttp://example.com/",
    "http:/127.0.0.1/",
    "http:127.0.0.1",
    // Not HTTP, or nothing at all.
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "unix:/var/run/docker.sock",
    "javascript:alert(1)",
    "data:text/plain,hi",
    "//127.0.0.1/",
    "127.0.0.1",
    "",
    "http://",
    "http://:80/",
    "http://256.256.256.256/",
    "http://1.2.3.4.5/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://[::1/",
    "http://[::g]/",
];

/// Names, and what somebody's name server says about them.
const HOSTILE_ANSWERS: &[(&str, &[&str])] = &[
    ("localhost", &["127.0.0.1"]),
    ("localhost.", &["127.0.0.1"]),
    ("foo.localhost", &["::1"]),
    ("metadata.google.internal", &["169.254.169.254"]),
    ("public-then-private.test", &["93.184.215.14", "10.0.0.1"]),
    ("private-then-public.test", &["10.0.0.1", "93.184.215.14"]),
    ("v6-and-loopback.test", &["2606:4700::1111", "::1"]),
    ("mapped.test", &["::ffff:169.254.169.254"]),
    ("mapped-private.test", &["::ffff:10.1.2.3"]),
    ("compatible.test", &["::10.1.2.3"]),
    ("nat64.test", &["64:ff9b::a00:1"]),
    ("nat64-local.test", &["64:ff9b:1:ffff::a00:1"]),
    ("6to4.test", &["2002:a00:1::"]),
    ("teredo.test", &["2001:0:1:2:3:4:f5ff:fffe"]),
    ("unspecified.test", &["0.0.0.0"]),
    ("unspecified6.test", &["::"]),
    ("cgnat.test", &["100.127.255.254"]),
    ("ula.test", &["fd12:3456::1"]),
    ("link-local.test", &["fe80::a9fe:a9fe"]),
    ("multicast.test", &["239.255.255.250"]),
    ("broadcast.test", &["255.255.255.255"]),
];

fn is_refused<T>(result: &Result<T, EgressError>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) => {
            assert!(!error.is_retryable(), "{error}");
            matches!(error, EgressError::Url { .. } | EgressError::Forbidden { .. })
        }
    }
}

#[tokio::test]
async fn hostile_urls_are_refused_at_creation_and_at_delivery() {
    // A name that is asked for has a public address: only the URL itself can refuse.
    let names = Names::with(&[("example.com", &[&["93.184.215.14"]])]);
    let egress = egress("", &names);
    for url in HOSTILE_URLS {
        for url in [(*url).to_owned(), url.replacen("http:", "https:", 1)] {
            assert!(is_refused(&egress.check(&url).await), "{url:?} passes the check");
            assert!(is_refused(&egress.send(post(&url)).await), "{url:?} is sent to");
        }
    }
    assert_eq!(names.asked(), 0);
}

#[tokio::test]
async fn hostile_answers_are_refused_at_creation_and_at_delivery() {
    for (name, addresses) in HOSTILE_ANSWERS {
        let names = Names::with(&[(name, &[addresses])]);
        let egress = egress("", &names);
        let url = format!("http://{name}:9/");
        assert!(is_refused(&egress.check(&url).await), "{name} passes the check");
        assert!(is_refused(&egress.send(post(&url)).await), "{name} is sent to");
    }
    // Other letters for `localhost`.
    let names = Names::with(&[("localhost", &[&["127.0.0.1"]])]);
    let egress = egress("", &names);
    for url in ["http://LOCALHOST/", "http://\u{24db}ocalhost/", "http://loc%61lhost/"] {
        assert!(is_refused(&egress.check(url).await), "{url}");
    }
    assert_eq!(names.asked(), 3);
}

#[tokio::test]
async fn what_is_allowed_is_reached() {
    let answer = "HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let receiver = Receiver::start("127.0.0.1", answer).await;
    let port = receiver.address.port();
    let names = Names::with(&[
        ("receiver.test", &[&["127.0.0.1"]]),
        ("mapped.test", &[&["::ffff:127.0.0.1"]]),
        ("localhost.", &[&["127.0.0.1"]]),
    ]);
    let egress = egress("127.0.0.0/8", &names);
    let hosts = ["127.0.0.1", "127.1", "0x7f000001", "receiver.test", "mapped.test", "localhost."];
    for host in hosts {
        let url = format!("http://{host}:{port}/hook?a=b");
        egress.check(&url).await.unwrap();
        let answer = egress.send(post(&url)).await.unwrap();
        assert_eq!((answer.status, &answer.body[..], answer.is_cut), (201, &b"ok"[..], false));
    }
    assert_eq!(receiver.requests().len(), hosts.len());
    assert!(receiver.requests()[0].starts_with("POST /hook?a=b HTTP/1.1\r\n"));
    // The rest of the private world is as closed as before.
    assert!(is_refused(&egress.check("http://10.0.0.1/").await));
}

#[tokio::test]
async fn a_name_that_is_bound_again_after_the_check_is_refused_at_the_connection() {
    let inside = Receiver::start("127.0.0.1", "HTTP/1.1 200 OK\r\n\r\n").await;
    let port = inside.address.port();
    let names = Names::with(&[("turns.test", &[&["93.184.215.14"], &["127.0.0.1"]])]);
    let egress = egress("", &names);
    let url = format!("http://turns.test:{port}/");
    egress.check(&url).await.unwrap();
    assert!(is_refused(&egress.send(post(&url)).await));
    assert!(inside.requests().is_empty());
}

#[tokio::test]
async fn the_connection_is_made_to_the_address_that_was_checked() {
    let outside =
        Receiver::start("127.0.0.2", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = outside.address.port();
    // Who asks a second time is led inside.
    let names = Names::with(&[("turns.test", &[&["127.0.0.2"], &["127.0.0.1"]])]);
    let egress = egress("127.0.0.2", &names);
    let url = format!("http://turns.test:{port}/");
    assert_eq!(egress.send(post(&url)).await.unwrap().status, 200);
    assert_eq!(names.asked(), 1);
    assert_eq!(outside.requests().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let inside = Receiver::start("127.0.0.1", "HTTP/1.1 200 OK\r\n\r\n").await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let location = format!("http://{}/secret", inside.address);
        let answer =
            format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let outside = Receiver::start("127.0.0.2", answer).await;
        let egress = egress("127.0.0.2", &Names::with(&[]));
        let answer = egress.send(post(&format!("http://{}/", outside.address))).await.unwrap();
        assert_eq!(answer.status.to_string(), status[..3]);
    }
    assert!(inside.requests().is_empty());
}

#[tokio::test]
async fn a_name_without_an_address_may_have_one_later() {
    let names = Names::with(&[("empty.test", &[&[]])]);
    let egress = egress("", &names);
    for url in ["http://none.test/", "http://empty.test/"] {
        for error in [egress.check(url).await.err(), egress.send(post(url)).await.err()] {
            let error = error.unwrap();
            assert!(matches!(error, EgressError::Resolve { .. }), "{url}: {error:?}");
            assert!(error.is_retryable());
        }
    }
}

#[tokio::test]
async fn of_a_huge_answer_the_beginning_is_taken() {
    let endless = |mut socket: TcpStream| async move {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n";
        let _ = socket.write_all(head).await;
        while socket.write_all(&[b'x'; 65_536]).await.is_ok() {}
    };
    let receiver = Receiver::with("127.0.0.1", endless).await;
    let egress = egress("127.0.0.1", &Names::with(&[]));
    let answer = egress.send(post(&format!("http://{}/", receiver.address))).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.is_cut), (200, 1_024, true));
}

#[tokio::test]
async fn exactly_as_much_as_is_wanted_is_not_cut() {
    for (length, is_cut) in [(1_024, false), (1_025, true)] {
        let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        bytes.extend(vec![b'x'; length]);
        let receiver = Receiver::start("127.0.0.1", bytes).await;
        let egress = egress("127.0.0.1", &Names::with(&[]));
        let answer = egress.send(post(&format!("http://{}/", receiver.address))).await.unwrap();
        assert_eq!((answer.body.len(), answer.is_cut), (1_024, is_cut));
    }
}

#[tokio::test]
async fn a_packed_answer_stays_packed() {
    let mut bytes =
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 20\r\n\r\n".to_vec();
    let packed = *b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
    bytes.extend(packed);
    let receiver = Receiver::start("127.0.0.1", bytes).await;
    let egress = egress("127.0.0.1", &Names::with(&[]));
    let answer = egress.send(post(&format!("http://{}/", receiver.address))).await.unwrap();
    assert_eq!(answer.body[..], packed);
    assert!(!receiver.requests()[0].to_lowercase().contains("accept-encoding"));
}

#[tokio::test]
async fn an_answer_that_drips_holds_nothing_up() {
    let drip = |mut socket: TcpStream| async move {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        while socket.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let receiver = Receiver::with("127.0.0.1", drip).await;
    let egress = egress("127.0.0.1", &Names::with(&[]));
    let request = Outbound {
        timeout: Duration::from_millis(300),
        ..post(&format!("http://{}/", receiver.address))
    };
    let answer = egress.send(request).await.unwrap();
    assert!(answer.status == 200 && answer.is_cut && answer.body.len() < 1_000, "{answer:?}");
    assert!(answer.duration < Duration::from_secs(3), "{answer:?}");
}

#[tokio::test]
async fn silence_and_headers_without_end_run_into_the_timeout() {
    let silent = |mut socket: TcpStream| async move {
        let _ = socket.read_u8().await;
    };
    let heads = |mut socket: TcpStream| async move {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while socket.write_all(b"a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    for receiver in
        [Receiver::with("127.0.0.1", silent).await, Receiver::with("127.0.0.1", heads).await]
    {
        let egress = egress("127.0.0.1", &Names::with(&[]));
        let timeout = Duration::from_millis(300);
        let request = Outbound { timeout, ..post(&format!("http://{}/", receiver.address)) };
        let error = egress.send(request).await.unwrap_err();
        assert_eq!(error, EgressError::Timeout { after: timeout });
    }
}

#[tokio::test]
async fn garbage_and_closed_doors_may_be_better_later() {
    let egress = egress("127.0.0.1", &Names::with(&[]));
    for bytes in [&b"\0\x01\x02garbage\r\n\r\n"[..], b"HTTP/9.9 999\r\n\r\n", b"SSH-2.0-x\r\n"] {
        let receiver = Receiver::start("127.0.0.1", bytes).await;
        let error = egress.send(post(&format!("http://{}/", receiver.address))).await.unwrap_err();
        assert!(matches!(error, EgressError::Broken { .. }) && error.is_retryable(), "{error:?}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = egress.send(post(&format!("http://{closed}/"))).await.unwrap_err();
    assert!(matches!(error, EgressError::Connect { .. }) && error.is_retryable(), "{error:?}");
}
