//! A light HTTP/1.1 connection: what a load generator spends on a request, the server beside it cannot
//! have. Heads are made once, requests go out in one write, of answers only what is needed is read.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use reqwest::Url;
use reqwest::header::HeaderMap;
use stream_storage::ProjectName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::client::ServerError;
use crate::cli::output::CliError;

pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const JSON: &str = "application/json";

/// Answers are read into pieces of at least this size.
const READ_BYTES: usize = 16 << 10;
/// Room for so much of an answer is made at once; for more, as it comes.
const ROOM_BYTES_MAX: usize = 16 << 20;
/// Bodies up to this size are copied behind their heads; larger ones go out from where they are.
const COPY_BYTES_MAX: usize = 16 << 10;
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
const TOO_MANY_REQUESTS: u16 = 429;

/// What requests go to, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `host:port`.
    address: String,
    /// The header of the key, if there is one.
    authorization: String,
    /// The project's path.
    prefix: String,
}

/// Requests that differ in their bodies only.
#[derive(Debug, Clone)]
pub(super) struct Post(Bytes);

/// A request, all but the length of its body as it goes out.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Without the empty line behind it.
    head: Bytes,
    body: Bytes,
}

/// One connection, on which requests follow each other.
pub(super) struct Wire {
    stream: TcpStream,
    address: String,
    out: BytesMut,
    /// What was read behind the last answer: nothing, or the server speaks out of turn.
    read: BytesMut,
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    /// `Stream-Next-Offset`.
    pub(super) next_offset: Option<u64>,
}

/// What an answer's head says.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    /// Its own bytes.
    bytes: usize,
    body_bytes: usize,
    next_offset: Option<u64>,
}

impl Endpoint {
    /// # Errors
    ///
    /// The address is none that can be connected to without TLS, or the key is none.
    pub(super) fn new(
        url: &Url,
        key: Option<&str>,
        project: &ProjectName,
    ) -> Result<Self, CliError> {
        let (Some(host), "http") = (url.host_str(), url.scheme()) else {
            let problem = "the benchmark speaks plain HTTP: give an `http://` address";
            return Err(CliError::Usage(problem.to_owned()));
        };
        if key.is_some_and(|key| key.contains(char::is_control)) {
            return Err(CliError::Usage("the key holds what a header cannot".to_owned()));
        }
        Ok(Self {
            address: format!("{host}:{}", url.port_or_known_default().unwrap_or(80)),
            authorization: key
                .map(|key| format!("authorization: Bearer {key}\r\n"))
                .unwrap_or_default(),
            prefix: format!("{}/projects/{project}", url.path().trim_end_matches('/')),
        })
    }

    /// A request of the project.
    pub(super) fn get(&self, path: &str, accept: Option<&str>) -> Request {
        let accept = accept.map(|accept| format!("accept: {accept}\r\n")).unwrap_or_default();
        Request { head: self.head("GET", path, &accept), body: Bytes::new() }
    }

    /// Requests of the project to a path that is made of names of topics.
    pub(super) fn post(&self, path: &str, content_type: &str) -> Post {
        Post(self.head("POST", path, &format!("content-type: {content_type}\r\n")))
    }

    fn head(&self, method: &str, path: &str, header: &str) -> Bytes {
        let Self { address, authorization, prefix } = self;
        format!("{method} {prefix}{path} HTTP/1.1\r\nhost: {address}\r\n{authorization}{header}")
            .into()
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Wire, CliError> {
        let address = self.address.clone();
        let stream = connect(&address).await?;
        Ok(Wire { stream, address, out: BytesMut::new(), read: BytesMut::new() })
    }
}

async fn connect(address: &str) -> Result<TcpStream, CliError> {
    let stream = TcpStream::connect(address).await.map_err(|error| unreachable(address, error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(address, error))?;
    Ok(stream)
}

impl Post {
    pub(super) fn with(&self, body: Bytes) -> Request {
        Request { head: self.0.clone(), body }
    }
}

impl Wire {
    /// Sends a request and reads the answer, whatever its status.
    pub(super) async fn send(&mut self, request: &Request) -> Result<Answer, CliError> {
        if !self.read.is_empty() {
            return Err(CliError::Answer { reason: "it is longer than it says".to_owned() });
        }
        let written = self.write(request).await;
        let answer = self.answer().await;
        // Who refuses a request before it is there whole answers, and takes no more of it.
        match written {
            Err(error) if answer.is_err() => Err(unreachable(&self.address, error)),
            _ => answer,
        }
    }

    async fn answer(&mut self) -> Result<Answer, CliError> {
        let head = loop {
            match head_of(&self.read)? {
                Some(head) if head.status >= 200 => break head,
                Some(interim) => self.read.advance(interim.bytes),
                None => self.read_more(0).await?,
            }
        };
        self.read.advance(head.bytes);
        while self.read.len() < head.body_bytes {
            self.read_more(head.body_bytes - self.read.len()).await?;
        }
        let body = self.read.split_to(head.body_bytes).freeze();
        Ok(Answer { status: head.status, body, next_offset: head.next_offset })
    }

    async fn write(&mut self, Request { head, body }: &Request) -> std::io::Result<()> {
        self.out.clear();
        self.out.extend_from_slice(head);
        let mut length = itoa::Buffer::new();
        self.out.extend_from_slice(b"content-length: ");
        self.out.extend_from_slice(length.format(body.len()).as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        if body.len() <= COPY_BYTES_MAX {
            self.out.extend_from_slice(body);
            return self.stream.write_all(&self.out).await;
        }
        self.stream.write_all_buf(&mut Buf::chain(&self.out[..], &body[..])).await
    }

    /// Reads what has come, of so much that is known to come.
    async fn read_more(&mut self, expected: usize) -> Result<(), CliError> {
        self.read.reserve(expected.clamp(READ_BYTES, ROOM_BYTES_MAX));
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) => Err(unreachable(&self.address, "the server closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(unreachable(&self.address, error)),
        }
    }

    /// As [`send`](Self::send), but a refusal is an error; who is told to wait tries again. Says how
    /// often it was told so.
    pub(super) async fn insist(&mut self, request: &Request) -> Result<(Answer, u64), CliError> {
        let mut refusals = 0;
        loop {
            let answer = self.send(request).await?;
            if answer.is_success() {
                return Ok((answer, refusals));
            }
            if answer.status != TOO_MANY_REQUESTS {
                return Err(answer.refused());
            }
            refusals += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
            if !request.body.is_empty() {
                // The server closes a connection from which it has not read all.
                self.stream = connect(&self.address).await?;
                self.read.clear();
            }
        }
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The error that the server told.
    pub(super) fn refused(&self) -> CliError {
        let error = ServerError::new(self.status, &HeaderMap::new(), &self.body);
        CliError::Server(Box::new(error))
    }
}

/// Reads the head of an answer; `None` until it is there whole.
fn head_of(read: &[u8]) -> Result<Option<Head>, CliError> {
    let wrong = |reason: &str| CliError::Answer { reason: reason.to_owned() };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let bytes = match answer.parse(read) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if read.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(wrong("its head does not end")),
        Err(error) => return Err(wrong(&format!("it is not HTTP: {error}"))),
    };
    let number = |name: &str| {
        let header = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<u64>().ok())
    };
    let status = answer.code.unwrap_or_default();
    let length = number("content-length").and_then(|length| usize::try_from(length).ok());
    let body_bytes = match length {
        // Those have none.
        _ if status < 200 || status == 204 => 0,
        Some(length) => length,
        None => return Err(wrong("it does not say its length")),
    };
    Ok(Some(Head { status, bytes, body_bytes, next_offset: number("stream-next-offset") }))
}

fn unreachable(address: &str, reason: impl ToString) -> CliError {
    CliError::Unreachable { url: address.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn wrong(read: &[u8]) -> String {
        head_of(read).unwrap_err().to_string()
    }

    #[test]
    fn a_head_is_read_once_it_is_there_whole() {
        let read = b"HTTP/1.1 200 OK\r\nStream-Next-Offset: 7\r\nContent-Length: 3\r\n\r\nabc";
        let bytes = read.len() - 3;
        for end in 0..bytes {
            assert_eq!(head_of(&read[..end]).unwrap(), None, "{end} bytes");
        }
        let head = Head { status: 200, bytes, body_bytes: 3, next_offset: Some(7) };
        assert_eq!(head_of(read).unwrap(), Some(head));
    }

    #[test]
    fn an_answer_that_says_no_length_is_refused_unless_it_has_no_body() {
        assert!(wrong(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").contains("length"));
        assert!(wrong(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n").contains("length"));
        let head = head_of(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.body_bytes), (204, 0));
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert!(wrong(b"SSH-2.0-OpenSSH_9.2\r\n").contains("not HTTP"));
        let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        endless.resize(HEAD_BYTES_MAX, b'y');
        assert!(wrong(&endless).contains("does not end"));
    }

    async fn listen() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap()).parse().unwrap();
        let project = ProjectName::parse("shop").unwrap();
        (listener, Endpoint::new(&url, Some("sk_key"), &project).unwrap())
    }

    async fn read_request(stream: &mut TcpStream, got: &mut Vec<u8>) {
        let start = got.len();
        let is_whole = |request: &[u8]| {
            memchr::memmem::find(request, b"\r\n\r\n").is_some_and(|end| {
                let head = std::str::from_utf8(&request[..end]).unwrap();
                let (_, length) = head.rsplit_once("\r\ncontent-length: ").unwrap();
                request.len() == end + 4 + length.parse::<usize>().unwrap()
            })
        };
        while !is_whole(&got[start..]) {
            assert_ne!(stream.read_buf(got).await.unwrap(), 0);
        }
    }

    /// What a server gets that answers so to the requests of a connection each, and what the client
    /// makes of it.
    async fn talk(
        connections: &'static [&'static [&'static [u8]]],
        bodies: &[Bytes],
    ) -> (String, Vec<String>) {
        let (listener, endpoint) = listen().await;
        let server = tokio::spawn(async move {
            let mut got = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in *answers {
                    read_request(&mut stream, &mut got).await;
                    stream.write_all(answer).await.unwrap();
                }
                stream.shutdown().await.unwrap();
                stream.read_to_end(&mut got).await.unwrap();
            }
            String::from_utf8(got).unwrap()
        });
        let mut wire = endpoint.connect().await.unwrap();
        let post = endpoint.post("/topics/t/events", NDJSON);
        let mut told = Vec::new();
        for body in bodies {
            told.push(match wire.insist(&post.with(body.clone())).await {
                Ok((answer, refusals)) => format!("{} {:?} {refusals}", answer.status, answer.body),
                Err(error) => error.to_string(),
            });
        }
        drop(wire);
        (server.await.unwrap(), told)
    }

    #[tokio::test]
    async fn requests_follow_each_other_and_who_is_told_to_wait_tries_again() {
        let (got, told) = talk(
            &[
                &[
                    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                    b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
                ],
                &[
                    b"HTTP/1.1 204 No Content\r\n\r\n",
                    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 33\r\n\r\n{\"error\":{\"message\":\"no, sorry\"}}",
                ],
            ],
            &[Bytes::from("1\n"), Bytes::from("2\n"), Bytes::from("3\n"), Bytes::from("4\n")],
        )
        .await;
        let head = got.split("\r\n\r\n").next().unwrap();
        assert!(
            head.starts_with("POST /base/projects/shop/topics/t/events HTTP/1.1\r\nhost: 127.")
        );
        assert!(
            head.contains("\r\nauthorization: Bearer sk_key\r\ncontent-type: application/x-ndjson")
        );
        assert!(head.ends_with("\r\ncontent-length: 2"), "{head}");
        let lines: Vec<&str> = got.lines().filter(|line| line.len() == 1).collect();
        assert_eq!(told, ["200 b\"{}\" 0", "204 b\"\" 1", "no, sorry", &told[3]]);
        assert!(told[3].contains("closed the connection"), "{}", told[3]);
        assert_eq!(lines, ["1", "2", "2", "3", "4"]);
    }

    #[tokio::test]
    async fn a_connection_on_which_all_was_read_is_kept_until_it_cannot_be_trusted() {
        let (_, told) = talk(
            &[&[
                b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}",
            ]],
            &[Bytes::new(), Bytes::new()],
        )
        .await;
        assert_eq!(told[0], "200 b\"{\" 1");
        assert!(told[1].contains("longer than it says"), "{}", told[1]);
    }

    #[tokio::test]
    async fn a_large_body_goes_out_whole() {
        let body = Bytes::from(vec![b'x'; 3 << 20]);
        let (got, told) =
            talk(&[&[b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]], &[body]).await;
        assert_eq!(told, ["200 b\"\" 0"]);
        assert_eq!(got.bytes().filter(|byte| *byte == b'x').count(), (3 << 20) + 1);
    }

    #[tokio::test]
    async fn who_is_refused_before_all_is_sent_is_told_why() {
        let (listener, endpoint) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno!";
            stream.write_all(answer).await.unwrap();
        });
        let mut wire = endpoint.connect().await.unwrap();
        let body = Bytes::from(vec![b'x'; 32 << 20]);
        let answer = wire.send(&endpoint.post("/events", NDJSON).with(body)).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (413, &b"no!"[..]));
        server.await.unwrap();
        let again = wire.send(&endpoint.get("/topics", None)).await;
        assert!(matches!(again, Err(CliError::Unreachable { .. })));
    }
}
