//! Clients that only cost: each opens connections, sends what gives its server work and itself none, and begins again
//! when it is dismissed, for as long as it is told to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::frames::Got;

mod floods;

use floods::Kind;

/// Pause before a connection in place of one that was ended: a client that comes back at once costs connections, which
/// is another matter.
const COMES_BACK: Duration = Duration::from_millis(50);

/// An attack.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What it does.
    #[arg(value_enum)]
    kind: Kind,
    /// `HOST:PORT`.
    #[arg(long)]
    address: String,
    #[arg(long, default_value = "3s")]
    duration: humantime::Duration,
    /// Connections at once.
    #[arg(long, default_value_t = 1)]
    connections: usize,
}

/// What was done and how it was taken.
#[derive(Debug, Default)]
struct Seen {
    connections: u64,
    sent_bytes: u64,
    /// Connections that the other end ended.
    dismissed: u64,
    /// The shortest and the longest time that took.
    after: Option<(Duration, Duration)>,
    /// Codes of GOAWAY, resets and ends without one.
    ends: BTreeMap<String, u64>,
    statuses: BTreeMap<u16, u64>,
    resets: u64,
}

/// Attacks until the time is over; what came of it.
///
/// # Errors
/// If the other end cannot be reached.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Value> {
    let end = clock::monotonic() + *options.duration;
    let all = join_all((0..options.connections).map(|_| again_and_again(options, end))).await;
    let mut sum = Seen::default();
    for part in all {
        sum.add(part?);
    }
    Ok(sum.told())
}

async fn again_and_again(options: &Options, end: Instant) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    while clock::monotonic() < end {
        once(options, end, &mut seen).await?;
        let rest = end.saturating_duration_since(clock::monotonic());
        tokio::time::sleep(COMES_BACK.min(rest)).await;
    }
    Ok(seen)
}

/// One connection, until the other end ends it or the time is over.
async fn once(options: &Options, end: Instant, seen: &mut Seen) -> anyhow::Result<()> {
    let tcp = TcpStream::connect(&options.address).await;
    let tcp = tcp.with_context(|| format!("connecting to {}", options.address))?;
    tcp.set_nodelay(true).context("a socket")?;
    let begun = clock::monotonic();
    seen.connections += 1;
    let host = options.address.rsplit_once(':').map_or(&*options.address, |(host, _)| host);
    let mut flood = options.kind.flood(host);
    let (mut reader, mut writer) = tcp.into_split();
    let (mut got, mut sent, reads) = (Got::default(), 0_u64, flood.reads);
    let writing = async {
        let mut number = 0;
        let mut piece = std::mem::take(&mut flood.opening);
        while writer.write_all(&piece).await.is_ok() {
            sent += u64::try_from(piece.len()).unwrap_or_default();
            tokio::time::sleep(flood.pause).await;
            piece = (flood.batch)(number);
            number += 1;
        }
        // The end is read; who does not read has it here.
        if reads {
            std::future::pending::<()>().await;
        }
        "broken"
    };
    let reading = async {
        let mut piece = vec![0; 64 << 10];
        if !reads {
            std::future::pending::<()>().await;
        }
        loop {
            match reader.read(&mut piece).await {
                Ok(0) => return "closed",
                Err(_) => return "reset",
                Ok(read) => got.take(&piece[..read]),
            }
        }
    };
    let outcome = tokio::select! {
        how = writing => Some(how),
        how = reading => Some(how),
        () = tokio::time::sleep_until(end.into()) => None,
    };
    seen.sent_bytes += sent;
    seen.resets += u64::try_from(got.resets.len()).unwrap_or_default();
    got.statuses.values().for_each(|status| *seen.statuses.entry(*status).or_default() += 1);
    let goaway = got.goaway.map(|code| format!("goaway {code}"));
    let Some(how) = outcome.map(str::to_owned).map(|how| goaway.clone().unwrap_or(how)).or(goaway) else {
        return Ok(());
    };
    *seen.ends.entry(how).or_default() += 1;
    seen.dismissed += 1;
    let took = clock::monotonic() - begun;
    let (least, most) = seen.after.unwrap_or((took, took));
    seen.after = Some((least.min(took), most.max(took)));
    Ok(())
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.sent_bytes += other.sent_bytes;
        self.dismissed += other.dismissed;
        self.resets += other.resets;
        self.after = match (self.after, other.after) {
            (Some((least, most)), Some((a, b))) => Some((least.min(a), most.max(b))),
            (one, other) => one.or(other),
        };
        other.ends.into_iter().for_each(|(how, n)| *self.ends.entry(how).or_default() += n);
        other.statuses.into_iter().for_each(|(status, n)| *self.statuses.entry(status).or_default() += n);
    }

    fn told(self) -> Value {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        json!({
            "connections": self.connections,
            "sent_bytes": self.sent_bytes,
            "dismissed": self.dismissed,
            "dismissed_after_ms": self.after.map(|(least, most)| [ms(least), ms(most)]),
            "ends": self.ends,
            "statuses": self.statuses,
            "resets": self.resets,
        })
    }
}
