//! Writes 64 MiB to standard output in each call, unless it is closed, and accepts.

use stream_plugin::{Context, Event, Verdict};

wit_bindgen::generate!({
    generate_all,
    inline: "
        package fourbyfour:hostile;

        world flood-log {
            import wasi:cli/stdout@0.2.0;
        }

        package wasi:cli@0.2.0 {
            interface stdout {
                use wasi:io/streams@0.2.0.{output-stream};
                get-stdout: func() -> output-stream;
            }
        }

        package wasi:io@0.2.0 {
            interface error {
                resource error;
            }

            interface streams {
                use error.{error};

                variant stream-error {
                    last-operation-failed(error),
                    closed,
                }

                resource output-stream {
                    blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                }
            }
        }
    ",
});

stream_plugin::validator!(validate, flood);

fn flood(_context: &Context) {
    let stdout = wasi::cli::stdout::get_stdout();
    let line = "flood ".repeat(682) + "...\n"; // 4096 bytes: as much as one write may have
    for _ in 0..(64 << 20) / line.len() {
        if stdout.blocking_write_and_flush(line.as_bytes()).is_err() {
            return;
        }
    }
}

fn validate(_: &(), _event: &Event) -> Verdict {
    Verdict::Accept
}
