//! The machine that is measured on, as Linux tells.

use std::fs;
use std::time::Duration;

/// In what Linux counts the time of processors towards programs.
const TICK: Duration = Duration::from_millis(10);
/// Where the time that the host took stands, behind the line's name: user, nice, system, idle, iowait,
/// irq and softirq come before it.
const STEAL: usize = 7;

/// The processor, how many of it, and the memory; and the version.
pub(super) fn describe() -> String {
    let first = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = first("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = first("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".to_owned());
    format!("stream {}; {cores} × {model}; memory {memory}", env!("CARGO_PKG_VERSION"))
}

/// For how long the host of a virtual machine has had its processors do other things than they were to
/// do, since it started; all processors together. What waits then waits for the host, whatever it runs.
/// `None` where the system does not tell.
pub(super) fn stolen() -> Option<Duration> {
    parse_stolen(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_stolen(stat: &str) -> Option<Duration> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: u32 = all.split_whitespace().nth(STEAL)?.parse().ok()?;
    Some(TICK * ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_the_host_took_is_that_of_all_processors() {
        let stat = "cpu  605334 6 173671 240209 60572 0 18333 305 0 0\n\
                    cpu0 302667 3 86835 120104 30286 0 9166 152 0 0\n";
        assert_eq!(parse_stolen(stat), Some(Duration::from_millis(3050)));
        assert_eq!(parse_stolen("cpu  1 2 3 4\n"), None, "of an old kernel");
        assert_eq!(parse_stolen(""), None);
    }

    #[test]
    fn it_never_shrinks() {
        let before = stolen();
        assert!(stolen() >= before);
    }
}
