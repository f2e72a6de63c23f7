//! What commands print: tables or JSON on standard output, errors on standard error, exit codes.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::client::ServerError;
use super::publish::InputError;
use super::serve::ServeError;

/// The end of `stream --help`; [`CliError::exit_code`] holds to it.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the server refused the request (4xx), or `serve` could not start
  2  the command line is wrong
  3  the server cannot be reached, or failed (5xx), also after trying again
  4  the input is malformed, a plugin cannot be built, or a file cannot be read or written
  5  a ledger or a receipt is not what was signed";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server answered with an error.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// No answer came.
    #[error("cannot reach `{url}`: {reason}")]
    Unreachable {
        /// The server, without path.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The answer is not what this version of the command line knows.
    #[error("the server's answer is not understood: {reason}")]
    Answer {
        /// What is wrong.
        reason: String,
    },
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The events to publish are malformed.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A file cannot be read.
    #[error("cannot read `{path}`: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file or a folder cannot be written.
    #[error("cannot write `{path}`: {reason}")]
    Write {
        /// The file or the folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no component at the end of a build.
    #[error("cannot build the plugin: {0}")]
    Build(String),
    /// A ledger or a receipt does not hold.
    #[error("not verified: {0}")]
    Unverified(String),
    /// Standard output cannot be written, or the answer to a question not be read.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The server did not start, or did not end well.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl CliError {
    pub(super) fn unreadable(path: &Path, error: impl ToString) -> Self {
        Self::File { path: path.into(), reason: error.to_string() }
    }

    pub(super) fn unwritable(path: &Path, error: impl ToString) -> Self {
        Self::Write { path: path.into(), reason: error.to_string() }
    }

    /// The exit code, as `stream --help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output(_) if self.is_closed_pipe() => 0,
            Self::Server(error) if error.is_refusal() => 1,
            Self::Serve(_) => 1,
            Self::Usage(_) => 2,
            Self::Server(_) | Self::Unreachable { .. } | Self::Answer { .. } => 3,
            Self::Input(_)
            | Self::File { .. }
            | Self::Write { .. }
            | Self::Build(_)
            | Self::Output(_) => 4,
            Self::Unverified(_) => 5,
        }
    }

    /// The status of the server's error.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Server(error) => Some(error.status),
            _ => None,
        }
    }

    /// Whether it is the server's error of this code.
    pub(super) fn has_code(&self, code: &str) -> bool {
        matches!(self, Self::Server(error) if error.code == code)
    }

    /// Says on standard error what is wrong and what may help. A reader of the output that has gone,
    /// as `head` does, is no error.
    pub fn report(&self) {
        if self.is_closed_pipe() {
            return;
        }
        let mut text = format!("error: {self}\n");
        if let Self::Server(error) = self {
            text.push_str(&error.origin());
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {hint}\n"));
        }
        say(&text);
    }

    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => {
                Some("is the server running? `stream serve` starts one; `--url` says where it is")
            }
            // A component cannot be sent in parts.
            Self::Server(error) if cell(&error.details, "limit") == "upload_bytes" => None,
            Self::Server(error) => hint_of(&error.code),
            _ => None,
        }
    }
}

/// What may help against an error of the server, by its code.
fn hint_of(code: &str) -> Option<&'static str> {
    match code {
        "invalid-key" => Some("give a key with `--key` or in `STREAM_API_KEY`"),
        "missing-scope" => Some("`stream key list` shows the scopes of each key"),
        "foreign-project" => Some("`--project` or `STREAM_PROJECT` says which project is meant"),
        "topic-not-found" => Some("`stream topic create` makes it, as does `publish --create`"),
        "topic-exists" => Some("`stream topic update` changes it"),
        "key-moves" => Some("`--accept-key-moves` accepts it"),
        "plugin-not-found" => Some("`stream plugin list` shows those that there are"),
        "plugin-bound" => {
            Some("`stream plugin unbind`, `route delete` and `connector delete` let go of it")
        }
        "bindings-not-found" => Some("`stream plugin bindings` shows where plugins are bound"),
        "stale-revision" => Some("others change it at the same time: run the command again"),
        "route-not-found" => Some("`stream route list` shows those that there are"),
        "group-not-found" => Some("`stream group list` shows those that there are"),
        "connector-not-found" => Some("`stream connector list` shows those that there are"),
        "connector-draining" => Some("`stream connector delete --drop` does not wait for it"),
        "group-has-members" => Some("`--force` does it all the same"),
        "queue-not-found" => Some("`stream worker queue set` makes it, as does a first job"),
        "endpoint-not-found" => Some("`stream hooks endpoint list` shows those that there are"),
        "endpoint-disabled" => Some("`stream hooks endpoint enable` sends to it again"),
        "forbidden-url" => Some("`stream serve --egress-allow` opens ranges of addresses"),
        "ledger-not-found" => Some("`stream ledger list` shows those that there are"),
        "not-indexed" => Some("`stream topic create --index id,key` makes a topic that is"),
        "offset-trimmed" => Some("`--from earliest` starts at the first record that is left"),
        "too-large" => Some("fewer events at once may pass: `publish --batch` says how many"),
        _ => None,
    }
}

/// Writes to standard error. If that is gone, there is no one to tell.
pub(super) fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Asks on the terminal whether to delete something, with a question that ends in `?`; without a
/// terminal there is nobody to ask.
pub(super) fn confirm(name: &str, question: &str) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        let problem =
            format!("deleting `{name}` needs `--yes` where there is no terminal to ask on");
        return Err(CliError::Usage(problem));
    }
    say(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Where results go: standard output, as tables for people or JSON for scripts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Prints `value` as a line of JSON, or as the text that `human` makes.
    pub(super) fn show(
        self,
        value: &Value,
        human: impl FnOnce(&Value) -> String,
    ) -> io::Result<()> {
        let text = if self.json { format!("{value}\n") } else { human(value) };
        self.write(text.as_bytes())
    }

    /// Prints a sentence for people; scripts go by the exit code.
    pub(super) fn done(self, sentence: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { self.write(format!("{sentence}\n").as_bytes()) }
    }

    /// Prints bytes as they are.
    pub(super) fn write(self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }
}

/// A field of a JSON object as a table shows it; `-` if it is absent, null or empty.
pub(super) fn cell(object: &Value, field: &str) -> String {
    let text = match object.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<_> =
                items.iter().map(|item| item.as_str().unwrap_or_default()).collect();
            items.join(",")
        }
        Some(Value::Number(number)) => match number.as_f64() {
            Some(fraction) if number.is_f64() => format!("{fraction:.1}"),
            _ => number.to_string(),
        },
        Some(other) => other.to_string(),
    };
    if text.is_empty() { "-".to_owned() } else { text.replace(char::is_control, " ") }
}

/// The rows under their titles, in aligned columns; columns of numbers to the right.
pub(super) fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let titles = titles.map(ToOwned::to_owned);
    let is_number = |cell: &String| cell.bytes().all(|byte| byte.is_ascii_digit());
    let columns: Vec<(usize, bool)> = (0..N)
        .map(|column| {
            let cells = || rows.iter().filter_map(move |row| row.get(column));
            let title = titles.get(column).map_or(0, String::len);
            let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0).max(title);
            (width, !rows.is_empty() && cells().all(is_number))
        })
        .collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (cell, (width, to_right)) in row.iter().zip(&columns) {
            let padded =
                if *to_right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line.push_str(&padded);
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and what they stand for, a line each.
pub(super) fn fields<const N: usize>(fields: [(&str, String); N]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().map(|(name, text)| format!("{name:<width$}  {text}\n")).collect()
}

/// The rows of a list in an answer.
pub(super) fn items<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server(status: u16) -> CliError {
        let body = br#"{"error":{"code":"c","message":"m","retryable":false}}"#;
        CliError::Server(Box::new(ServerError::new(status, &Default::default(), body)))
    }

    #[test]
    fn each_kind_of_error_has_its_exit_code() {
        let unreachable =
            CliError::Unreachable { url: "http://h".to_owned(), reason: "gone".to_owned() };
        let line = InputError::Line { line: 1, reason: "bad".to_owned() };
        let file = CliError::File { path: "f".into(), reason: "gone".to_owned() };
        let cases = [
            (server(400), 1),
            (server(404), 1),
            (server(429), 1),
            (server(500), 3),
            (server(503), 3),
            (unreachable, 3),
            (CliError::Answer { reason: "no offset".to_owned() }, 3),
            (CliError::Usage("no".to_owned()), 2),
            (CliError::Input(line), 4),
            (file, 4),
            (CliError::unwritable(Path::new("f"), "no room"), 4),
            (CliError::Build("no".to_owned()), 4),
            (CliError::Output(io::ErrorKind::StorageFull.into()), 4),
            (CliError::Output(io::ErrorKind::BrokenPipe.into()), 0),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error:?}");
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
        }
    }

    #[test]
    fn columns_are_aligned_and_numbers_are_to_the_right() {
        let row = |name: &str, count: &str| [name.to_owned(), count.to_owned(), "-".to_owned()];
        let text =
            table(["NAME", "COUNT", "NOTE"], &[row("a.long.name", "7"), row("b", "1234567")]);
        let expected = "NAME           COUNT  NOTE\n\
                        a.long.name        7  -\n\
                        b            1234567  -\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_cell_shows_any_kind_of_value_on_one_line() {
        let object = json!({
            "text": "a\nb", "none": null, "empty": "", "number": 7, "fraction": 0.25, "list": ["a", "b"],
        });
        let cases = [
            ("text", "a b"),
            ("none", "-"),
            ("empty", "-"),
            ("number", "7"),
            ("fraction", "0.2"),
            ("list", "a,b"),
            ("x", "-"),
        ];
        for (field, expected) in cases {
            assert_eq!(cell(&object, field), expected, "{field}");
        }
    }
}
