//! Starting tasks: every one has a name, a panic in one is logged and counted and ends only that task.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tracing::error;

/// Starts `work` on the current runtime under a name that shows up if it panics.
#[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
pub fn spawn<F>(name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(guarded(name, work))
}

/// Wraps `work` so that a panic becomes a log line and a count. An `async fn` would hold `work` twice: as its argument
/// and as what it awaits.
pub fn guarded<F: Future<Output = ()>>(name: &'static str, work: F) -> impl Future<Output = ()> {
    AssertUnwindSafe(work).catch_unwind().map(move |ended| {
        if let Err(panic) = ended {
            metrics::counter!("ambit_task_panics_total", "task" => name).increment(1);
            error!(task = name, panic = %panic_text(&*panic), "a task panicked; its work is lost, the process goes on");
        }
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is spawned is copied, so a guard that held it twice would cost every task.
    #[test]
    fn a_guard_holds_its_work_once() {
        let work = async {
            let held = [1_u8; 4096];
            tokio::task::yield_now().await;
            let _ = std::hint::black_box(held);
        };
        let size = size_of_val(&work);
        let guarded = size_of_val(&guarded("held-once", work));
        assert!(size >= 4096 && guarded < size + 128, "{size} bytes of work, {guarded} guarded");
    }
}
