//! The packet rules and policy routes inside one pod's namespace: putting them there, proving that they are there,
//! taking them away.
//!
//! Everything happens inside the namespace that the caller hands in; which pod that is, and which rules it should have,
//! is decided elsewhere. Nothing here retries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ambit_net::linux::netns::{NetNs, NetNsError};
use ambit_types::reason::Reason;
use tracing::warn;

use crate::rules::{Rules, Stage, read_comment};

pub mod nft;
pub mod routing;
pub mod sockets;

/// Reference listings kept; beyond that all are made anew.
const REFERENCES_MAX: usize = 64;

/// Why the state of a namespace could not be changed or told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatapathError {
    /// `nft` said no, or is missing.
    #[error("packet rules")]
    Rules(#[from] nft::NftError),
    /// Policy routing could not be read or changed.
    #[error("policy routing")]
    Routing(#[from] routing::RoutingError),
    /// The namespace could not be entered.
    #[error("entering the namespace")]
    Namespace(#[from] NetNsError),
    /// The kernel took the rules but shows others.
    #[error("the rules were taken but are not there: {found}; does another program change this namespace?")]
    NotInForce {
        /// What is there instead.
        found: String,
    },
    /// The namespace could not be looked at.
    #[error("looking for open connections in the namespace")]
    Sockets(#[source] std::io::Error),
}

impl DatapathError {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Rules(_)
            | Self::Routing(_)
            | Self::Namespace(_)
            | Self::NotInForce { .. }
            | Self::Sockets(_) => Reason::RulesFailed,
        }
    }
}

/// What a look at a namespace found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Exactly what should be there; the number is the ruleset's generation, for a cheaper look next time.
    Intact(u32),
    /// Something else; in words.
    Altered(String),
}

/// Programs namespaces and compares them with what the rules should look like.
///
/// The same rules are loaded once into an empty namespace of our own, and what `nft` prints there is the reference:
/// so a change of any rule is seen, whatever this version of `nft` makes of the text.
#[derive(Debug, Default)]
pub struct Datapath {
    references: Mutex<BTreeMap<String, Arc<Reference>>>,
}

/// What rules come to on this kernel.
#[derive(Debug)]
struct Reference {
    /// The transaction that the kernel takes.
    text: String,
    /// What `nft` prints of it.
    listing: String,
}

impl Datapath {
    /// Puts `rules` and the routes in force, replacing what was there at once, and proves it.
    ///
    /// # Errors
    /// [`DatapathError`]; what was there before stays if the new rules are refused.
    pub async fn install(&self, netns: &NetNs, rules: &Rules) -> Result<u32, DatapathError> {
        let netlink = routing::Netlink::open(netns)?;
        netlink.ensure().await?;
        nft::load(netns, &self.reference(rules).await?.text).await?;
        match self.inspect(netns, rules, None).await? {
            Found::Intact(generation) => Ok(generation),
            Found::Altered(found) => Err(DatapathError::NotInForce { found }),
        }
    }

    /// Compares the namespace with `rules`. With the generation of an earlier look that found them intact, and none
    /// changed since, only the routes are read.
    ///
    /// # Errors
    /// [`DatapathError`] if the namespace cannot be looked at.
    pub async fn inspect(
        &self,
        netns: &NetNs,
        rules: &Rules,
        known: Option<u32>,
    ) -> Result<Found, DatapathError> {
        let missing = routing::Netlink::open(netns)?.missing().await?;
        if let Some(missing) = missing {
            return Ok(Found::Altered(missing));
        }
        // Read first: a change during the listing shows as another generation next time.
        let generation = nft::generation(netns)?;
        if known == Some(generation) {
            return Ok(Found::Intact(generation));
        }
        let Some(listing) = nft::listing(netns).await? else {
            return Ok(Found::Altered("our table is gone".to_owned()));
        };
        let reference = self.reference(rules).await?;
        if listing == reference.listing {
            return Ok(Found::Intact(generation));
        }
        Ok(Found::Altered(difference(&reference.listing, &listing)))
    }

    /// The stage and stamp of our table in a namespace, if it is there.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub async fn stage(&self, netns: &NetNs) -> Result<Option<(Stage, String)>, DatapathError> {
        let Some(listing) = nft::listing(netns).await? else { return Ok(None) };
        let comment = listing.lines().find_map(|l| l.trim().strip_prefix("comment \"")?.strip_suffix('"'));
        // A table of ours whose comment cannot be read is there all the same.
        let known = comment.and_then(read_comment).map(|(stage, stamp)| (stage, stamp.to_owned()));
        Ok(Some(known.unwrap_or((Stage::Capture, String::new()))))
    }

    /// Takes rules and routes away, whether or not they are there.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub async fn remove(&self, netns: &NetNs) -> Result<(), DatapathError> {
        nft::load(netns, &crate::rules::removal()).await?;
        routing::Netlink::open(netns)?.remove().await?;
        Ok(())
    }

    async fn reference(&self, rules: &Rules) -> Result<Arc<Reference>, DatapathError> {
        if let Some(known) = self.references.lock().unwrap_or_else(PoisonError::into_inner).get(&rules.text) {
            return Ok(Arc::clone(known));
        }
        let empty = NetNs::create_anonymous()?;
        let text = load_what_fits(&empty, rules).await?.to_owned();
        let listing = nft::listing(&empty).await?.ok_or_else(|| DatapathError::NotInForce {
            found: "no table, even in an empty namespace".to_owned(),
        })?;
        let reference = Arc::new(Reference { text, listing });
        let mut references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if references.len() >= REFERENCES_MAX {
            references.clear();
        }
        references.insert(rules.text.clone(), Arc::clone(&reference));
        Ok(reference)
    }
}

/// Loads the rules, or those that need less of the kernel; returns which.
async fn load_what_fits<'r>(netns: &NetNs, rules: &'r Rules) -> Result<&'r str, DatapathError> {
    let (said, fewer) = match (nft::load(netns, &rules.text).await, &rules.without_socket_match) {
        (Ok(()), _) => return Ok(&rules.text),
        (Err(nft::NftError::Refused { said, .. }), Some(fewer)) => (said, fewer),
        (Err(error), _) => return Err(error.into()),
    };
    nft::load(netns, fewer).await?;
    warn!(
        said,
        "this kernel cannot match listening sockets in packet rules, so tcpSocket probes of captured pods succeed even \
         if nothing listens; load the modules nft_socket, nft_reject_inet and nft_fib_inet and restart this agent, or \
         use httpGet, grpc or exec probes"
    );
    Ok(fewer)
}

/// The first line that differs, for the log.
fn difference(reference: &str, listing: &str) -> String {
    let mut want = reference.lines().map(str::trim);
    let mut have = listing.lines().map(str::trim);
    loop {
        match (want.next(), have.next()) {
            (Some(want), Some(have)) if want == have => {}
            (Some(want), Some(have)) => return format!("found {have:?} where {want:?} should be"),
            (Some(want), None) => return format!("{want:?} is missing"),
            (None, Some(have)) => return format!("found {have:?}, which is not ours"),
            (None, None) => return "only white space differs".to_owned(),
        }
    }
}
