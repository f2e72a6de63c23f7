//! How far a measurement is, on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::figures::{per_second, short};

/// How often it is shown.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);

/// A line on standard error; hidden unless that is a terminal.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// `what` is measured.
    pub(super) fn new(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {prefix}: {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(what.to_owned());
        Self(bar)
    }

    /// So many events so far.
    pub(super) fn show(&self, events: u64, elapsed: Duration) {
        let rate = short(per_second(events, elapsed));
        self.0.set_message(format!("{rate} events/s, {:.0} s", elapsed.as_secs_f64()));
        self.0.tick();
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
