//! Messages, descriptors and peer credentials over a real socket pair.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

async fn pair(dir: &Path) -> (SeqpacketListener, SeqpacketConn, SeqpacketConn, PeerCred) {
    let path = dir.join("s.sock");
    let listener = SeqpacketListener::bind(&path, 0o600).unwrap();
    let client = SeqpacketConn::connect(&path).unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    (listener, client, server, peer)
}

#[tokio::test]
async fn messages_keep_their_bounds_and_the_end_shows() {
    let dir = tempfile::tempdir().unwrap();
    let (_listener, client, server, peer) = pair(dir.path()).await;
    assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
    assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
    client.send(b"one", None).await.unwrap();
    client.send(b"three", None).await.unwrap();
    let mut buffer = [0; 16];
    for want in [&b"one"[..], b"three"] {
        let got = server.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..got.len], want);
        assert!(got.fds.is_empty() && !got.truncated);
    }
    assert_eq!(client.send(b"", None).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    drop(client);
    assert!(server.recv(&mut buffer).await.unwrap().is_end());
    assert_eq!(server.send(b"late", None).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_descriptor_travels_with_its_message_and_closes_on_exec() {
    let dir = tempfile::tempdir().unwrap();
    let (_listener, client, server, _) = pair(dir.path()).await;
    let path = dir.path().join("file");
    File::create(&path).unwrap().write_all(b"content").unwrap();
    client.send(b"take", Some(File::open(&path).unwrap().as_fd())).await.unwrap();
    let mut buffer = [0; 16];
    let mut got = server.recv(&mut buffer).await.unwrap();
    assert_eq!((got.len, got.fds.len(), got.truncated), (4, 1, false));
    let fd = got.fds.pop().unwrap();
    let flags = rustix::io::fcntl_getfd(&fd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
}

#[tokio::test]
async fn a_message_too_large_for_the_buffer_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let (_listener, client, server, _) = pair(dir.path()).await;
    client.send(&[7; 32], None).await.unwrap();
    client.send(b"next", None).await.unwrap();
    let mut buffer = [0; 16];
    let got = server.recv(&mut buffer).await.unwrap();
    assert_eq!((got.len, got.truncated), (16, true));
    let got = server.recv(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..got.len], got.truncated), (&b"next"[..], false));
}

#[tokio::test]
async fn the_file_is_private_replaced_when_dead_and_kept_when_alive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = SeqpacketListener::bind(&path, 0o600).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(SeqpacketListener::bind(&path, 0o600), Err(SeqpacketError::InUse { .. })));
    // The probe of the refused server is one connection that has ended.
    let (probe, _) = listener.accept().await.unwrap();
    assert!(probe.recv(&mut [0; 4]).await.unwrap().is_end());
    drop(listener);
    assert!(!path.exists());
    // A server that died by force leaves its file behind.
    let dead = new_socket().unwrap();
    rustix::net::bind(&dead, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    drop(dead);
    assert!(path.exists());
    assert!(matches!(SeqpacketConn::connect(&path), Err(SeqpacketError::Connect { .. })));
    let listener = SeqpacketListener::bind(&path, 0o600).unwrap();
    // A successor's file survives the end of its predecessor.
    std::fs::remove_file(&path).unwrap();
    let successor = SeqpacketListener::bind(&path, 0o600).unwrap();
    drop(listener);
    assert!(path.exists());
    drop(successor);
    std::fs::write(&path, "not a socket").unwrap();
    assert!(matches!(SeqpacketListener::bind(&path, 0o600), Err(SeqpacketError::Bind { .. })));
}
