//! Work that would hold up the other tasks of a thread.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Below this many bytes, decoding or encoding takes well below a millisecond: handing the thread over
/// does less good than it costs.
const HEAVY_BYTES: usize = 1 << 20;

/// Runs `work` on about `bytes` bytes. If that takes a while, the other tasks of this thread go on
/// elsewhere meanwhile; where there is no elsewhere they wait.
pub(crate) fn heavy<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if bytes >= HEAVY_BYTES && matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_outside_of_a_runtime_too() {
        assert_eq!(heavy(HEAVY_BYTES, || 1), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_go_on_while_heavy_work_runs() {
        let (sent, received) = std::sync::mpsc::channel();
        let task = tokio::spawn(async move { heavy(HEAVY_BYTES, || received.recv()) });
        // Runs on the one worker, which the task above gave away.
        tokio::spawn(async move { sent.send(7) }).await.unwrap().unwrap();
        assert_eq!(task.await.unwrap(), Ok(7));
    }
}
