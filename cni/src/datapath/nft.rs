//! Running `nft` inside a namespace, and asking the kernel whether its rules have changed.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use ambit_net::linux::netns::{NetNs, NetNsError};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rules::TABLE;

/// Longest run of `nft`; the kernel answers within milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why `nft` could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The namespace could not be entered.
    #[error("entering the namespace for nft")]
    Namespace(#[from] NetNsError),
    /// The program could not be started or talked to.
    #[error("running nft; is nftables installed and nft in PATH?")]
    Run(#[source] io::Error),
    /// It said no.
    #[error("nft refused ({status}): {said}; `ambit check --pre --datapath` tells what this kernel lacks")]
    Refused {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The first line of what it said.
        said: String,
    },
    /// It did not end.
    #[error("nft did not end within {DEADLINE:?} and was stopped")]
    Deadline,
    /// The kernel did not answer the question for the ruleset's generation.
    #[error("asking the kernel for the generation of its rules")]
    Generation(#[source] io::Error),
}

/// Runs `text` as one transaction inside the namespace.
///
/// # Errors
/// [`NftError`]; then nothing has changed, or after [`NftError::Deadline`] it cannot be told.
pub async fn load(netns: &NetNs, text: &str) -> Result<(), NftError> {
    let out = run(netns, &["-f", "-"], text).await?;
    if out.status.success() { Ok(()) } else { Err(refused(&out)) }
}

/// What our table looks like without its counters; `None` if it is not there.
///
/// # Errors
/// [`NftError`].
pub async fn listing(netns: &NetNs) -> Result<Option<String>, NftError> {
    let args: Vec<&str> = ["-s", "list", "table"].into_iter().chain(TABLE.split(' ')).collect();
    let out = run(netns, &args, "").await?;
    if out.status.success() {
        return Ok(Some(String::from_utf8_lossy(&out.stdout).into_owned()));
    }
    if String::from_utf8_lossy(&out.stderr).contains("No such file or directory") {
        return Ok(None);
    }
    Err(refused(&out))
}

fn refused(out: &std::process::Output) -> NftError {
    let said = String::from_utf8_lossy(&out.stderr);
    let said = said.lines().find(|l| !l.trim().is_empty()).unwrap_or("nothing").trim().to_owned();
    NftError::Refused { status: out.status, said }
}

async fn run(netns: &NetNs, args: &[&str], input: &str) -> Result<std::process::Output, NftError> {
    // The child inherits the namespace of the thread that starts it; only the start itself happens there.
    let mut child = netns.run(|| start(args))?.map_err(NftError::Run)?;
    let mut stdin = child.stdin.take().expect("stdin was asked for");
    let talk = async {
        // A child that refuses early closes its end; what it says counts, not our failed write.
        let written = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let out = child.wait_with_output().await?;
        match written {
            Err(e) if out.status.success() => Err(e),
            Ok(()) | Err(_) => Ok(out),
        }
    };
    timeout(DEADLINE, talk).await.map_err(|_| NftError::Deadline)?.map_err(NftError::Run)
}

fn start(args: &[&str]) -> io::Result<Child> {
    Command::new("nft")
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// The number that the kernel raises with every change of any nftables rule in the namespace.
///
/// # Errors
/// [`NftError::Generation`].
pub fn generation(netns: &NetNs) -> Result<u32, NftError> {
    netns.run(ask_generation)?.map_err(NftError::Generation)
}

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;
const NLM_F_REQUEST: u16 = 1;
/// Length of the netlink header and the netfilter header behind it.
const HEADERS: usize = 16 + 4;

fn ask_generation() -> io::Result<u32> {
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
    let mut request = Vec::with_capacity(HEADERS);
    request.extend_from_slice(&(HEADERS as u32).to_ne_bytes());
    request.extend_from_slice(&((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN).to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 12]); // sequence, port, and the netfilter header: any family, version 0
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut reply = [0; 512];
    // The kernel has answered before send returns, so there is nothing to wait for.
    let (len, _) = rustix::net::recv(&socket, &mut reply[..], RecvFlags::DONTWAIT)?;
    let reply = reply.get(..len).unwrap_or_default();
    read_generation(reply).ok_or_else(|| io::Error::other("the answer is not a generation"))
}

/// Reads NFTA_GEN_ID out of one NFT_MSG_NEWGEN message.
fn read_generation(reply: &[u8]) -> Option<u32> {
    let half = |at: usize| Some(u16::from_ne_bytes(reply.get(at..at + 2)?.try_into().ok()?));
    if half(4)? != (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN {
        return None;
    }
    let mut at = HEADERS;
    while let (Some(len), Some(kind)) = (half(at), half(at + 2)) {
        if kind == NFTA_GEN_ID {
            return Some(u32::from_be_bytes(reply.get(at + 4..at + 8)?.try_into().ok()?));
        }
        at += usize::from(len.max(4)).next_multiple_of(4);
    }
    None
}
