//! Settings are read as operators expect, and nonsense is named.

use std::time::Duration;

use clap::Parser as _;

use super::Config;

fn config(args: &[&str]) -> Result<Config, clap::Error> {
    Config::try_parse_from(std::iter::once("ztunnel").chain(args.iter().copied()))
}

#[test]
fn the_drain_deadline_follows_the_grace_period() {
    // G20: a grace period of 0 does not underflow.
    let rows = [
        (vec![], 5),
        (vec!["--grace-period-seconds", "0"], 1),
        (vec!["--grace-period-seconds", "1"], 1),
        (vec!["--grace-period-seconds", "10"], 9),
        (vec!["--grace-period-seconds", "30"], 25),
        (vec!["--grace-period-seconds", "30", "--termination-deadline", "7s"], 7),
    ];
    for (args, seconds) in rows {
        assert_eq!(config(&args).unwrap().drain.deadline(), Duration::from_secs(seconds), "row {args:?}");
    }
}

#[test]
fn worker_threads_follow_limits_and_shares() {
    let rows = [
        (vec![], 2, 2),
        (vec![], 64, 16),
        (vec!["--worker-threads", "0"], 8, 8),
        (vec!["--worker-threads", "3"], 8, 3),
        (vec!["--worker-threads", "25%"], 8, 2),
        (vec!["--resource-cpu-limit", "1500m"], 8, 2),
        (vec!["--resource-cpu-request", "6"], 8, 6),
        (vec!["--cpu-limit", "4"], 64, 2),
    ];
    for (args, processors, want) in rows {
        assert_eq!(config(&args).unwrap().workers.count(processors), want, "row {args:?}");
    }
}

#[test]
fn nonsense_is_refused_with_its_name() {
    for args in
        [["--secret-ttl", "soon"], ["--worker-threads", "200%"], ["--packet-mark", "x"], ["--nope", "1"]]
    {
        let text = config(&args).unwrap_err().to_string();
        assert!(text.contains(args[0]), "{text}");
    }
}

#[test]
fn state_is_kept_where_the_settings_say() {
    use std::path::Path;

    let rows: [(&[&str], &str, &str); 4] = [
        (&[], "", "state.key"),
        (&["--state-dir", ""], "", "state.key"),
        (&["--state-dir", "/s"], "/s", "/s/state.key"),
        (&["--state-dir", "/s", "--state-key-file", "/k"], "/s", "/k"),
    ];
    for (args, dir, key) in rows {
        let state = config(args).unwrap().state;
        assert_eq!((&*state.dir, &*state.key_file()), (Path::new(dir), Path::new(key)), "row {args:?}");
    }
    let state = config(&[]).unwrap().state;
    assert_eq!((state.keys, state.max_age), (true, Duration::from_secs(86_400)));
}

#[test]
fn launchers_words_are_accepted() {
    assert!(config(&["proxy", "ztunnel"]).is_ok());
}

#[test]
fn metadata_carries_istio_meta_variables() {
    let env = [
        ("ISTIO_META_X", "1"),
        ("ISTIO_METAJSON_Y", "{\"a\":2}"),
        ("ISTIO_METAJSON_BAD", "{"),
        ("PATH", "/"),
    ];
    let env = env.map(|(k, v)| (k.to_owned(), v.to_owned()));
    let (metadata, unreadable) = super::node_metadata(&config(&[]).unwrap(), env.into_iter());
    assert_eq!(metadata["X"], "1");
    assert_eq!(metadata["Y"]["a"], 2);
    assert_eq!(unreadable, ["ISTIO_METAJSON_BAD"]);
    assert!(!metadata.contains_key("PATH"));
}
