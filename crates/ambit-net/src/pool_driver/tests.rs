//! Bookkeeping of keys and ids; pools with real tunnels are tested in the workspace's loopback tests.

use ambit_hbone::pool::Limits;

use super::{Attempt, Pool, Step, sweep};

/// The id under which a tunnel is to be opened; opening it then fails.
fn id(pool: &Pool<u8>, key: u8) -> u64 {
    let Step::Open(id) = pool.acquire(&key) else { panic!("a tunnel is there") };
    drop(Attempt { pool, key: &key, done: false });
    id
}

/// Whoever gives back a slot of a tunnel that is gone must not meet another tunnel of the same id.
#[tokio::test]
async fn ids_are_not_given_again_when_a_key_returns() {
    let pool = Pool::new(Limits::default());
    let mut ids = Vec::new();
    for key in [1, 1, 2, 1] {
        ids.push(id(&pool, key));
        sweep(&pool.inner);
        assert!(pool.lock().is_empty(), "the key is forgotten");
    }
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}
