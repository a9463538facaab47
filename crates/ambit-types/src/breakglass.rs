//! Passes for a while (break-glass): how an AuthorizationPolicy is named that is one, and where it says for how long.
//!
//! Words only; `ambit-manifest` reads and checks them.

/// Name of the policy by which somebody lets everybody into a namespace for a while.
pub const NAME: &str = "ambit-breakglass";

/// Annotation that says since when, in RFC 3339.
pub const OPENED: &str = "ambit.internal/breakglass-opened";

/// Annotation that says until when, in RFC 3339.
pub const UNTIL: &str = "ambit.internal/breakglass-until";

/// The longest that a pass may be open, in seconds: 24 hours.
pub const LONGEST_SECONDS: u64 = 24 * 3600;
