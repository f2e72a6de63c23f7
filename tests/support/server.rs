//! The server under test: the same `main` as the `stream` binary.

fn main() -> std::process::ExitCode {
    stream_host::main()
}
