//! Which traces are recorded. Pure.

use super::TraceId;

/// Bits of a trace id that are random by agreement (W3C Trace Context Level 2, section 3.2.2.3.1).
const RANDOM_BITS: u32 = 56;

/// Decides whether a trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether a caller that has decided is followed.
    pub is_parent_based: bool,
    /// What happens where nobody has decided before.
    pub root: Root,
}

/// Decides about traces that nobody has decided about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Root {
    /// All are recorded.
    Always,
    /// None is.
    Never,
    /// This share of them, from 0 to 1, by their ids: every proxy that has the same share takes the same traces.
    Share(f64),
}

impl Sampler {
    /// Records nothing: there is nobody to export to.
    pub const OFF: Self = Self { is_parent_based: false, root: Root::Never };

    /// Follows who has passed on what it decided, and records nothing by itself.
    pub const FOLLOW: Self = Self { is_parent_based: true, root: Root::Never };

    /// A sampler by its name in `OTEL_TRACES_SAMPLER` and its argument; none if there is none of that name, or the
    /// argument is no share.
    pub fn named(name: &str, argument: Option<&str>) -> Option<Self> {
        let (is_parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Root::Always,
            "always_off" => Root::Never,
            "traceidratio" => {
                // The specification's own default for a share that is not named is all.
                let share: f64 = argument.map_or(Ok(1.0), str::parse).ok()?;
                (0.0..=1.0).contains(&share).then_some(Root::Share(share))?
            }
            _ => return None,
        };
        Some(Self { is_parent_based, root })
    }

    /// Whether a trace is recorded of which the caller says `parent`.
    pub(crate) fn decides(&self, trace: TraceId, parent: Option<bool>) -> bool {
        match parent.filter(|_| self.is_parent_based) {
            Some(is_sampled) => is_sampled,
            None => self.root.takes(trace),
        }
    }
}

impl Default for Sampler {
    /// Follows the caller, and takes one of a hundred traces that begin here, as Istio does.
    fn default() -> Self {
        Self { is_parent_based: true, root: Root::Share(0.01) }
    }
}

impl Root {
    pub(super) fn takes(self, TraceId(id): TraceId) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Share(share) => {
                let random = id & ((1 << RANDOM_BITS) - 1);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "a share of at most 1, and 56 bits"
                )]
                let rejected = ((1.0 - share) * (1_u64 << RANDOM_BITS) as f64) as u128;
                random >= rejected
            }
        }
    }
}
