//! Whether one authority may follow another: what is lost, restored or swapped must not cut off the mesh. Pure.
//!
//! Peers that have not heard of a change yet still have to believe each other, so old and new each know the other's root.
//! A rotation does so with every step, and what does not come from one has no excuse.

use super::material::{self, Block, Issuing, MaterialError, Owner};
use super::rotation::Ring;

#[cfg(test)]
mod tests;

/// An authority and whose it is.
type Kept<'a> = (&'a Ring<Issuing>, Owner);

/// Decides whether what is kept may take the place of the one in force. `sees_each_step` if no rotation can have taken
/// more than one step since the one in force was read; else one that is later may be a whole rotation on.
///
/// # Errors
/// Why not, and what to do, in words.
pub(super) fn follows(old: Kept<'_>, new: Kept<'_>, sees_each_step: bool) -> Result<(), String> {
    let are_ours = (old.1, new.1) == (Owner::Us, Owner::Us);
    let is_later = new.0.state.generation > old.0.state.generation;
    if are_ours && is_later && !sees_each_step {
        return Ok(());
    }
    overlaps(old.0, new.0).map_err(|why| match are_ours {
        true => format!(
            "what the Secret holds does not come from the authority in force: {why}; delete the Secret, and the one in \
             force is written anew"
        ),
        false => why,
    })
}

/// Whether one authority may follow another at once: peers that have not heard of it yet still believe each other.
fn overlaps(old: &Ring<Issuing>, new: &Ring<Issuing>) -> Result<(), String> {
    let parts = |ring: &Ring<Issuing>| -> Result<_, MaterialError> {
        // Not any root of its bundle: the one by which others would have to know its certificates.
        Ok((material::blocks(material::ROOTS, &material::bundle(ring)?)?, material::root(&ring.signing)?))
    };
    let (old_bundle, old_root) = parts(old).map_err(|e| e.to_string())?;
    let (new_bundle, new_root) = parts(new).map_err(|e| e.to_string())?;
    if !holds(&new_bundle, &old_root) {
        return Err("the new trust bundle lacks the root of the issuer in force, so it would cut off everybody; keep \
                    that root in the bundle until all certificates are renewed"
            .to_owned());
    }
    if !holds(&old_bundle, &new_root) {
        return Err(
            "the new issuer's root is not in the trust bundle in force, so nobody would believe its \
                    certificates; add the root to the bundle first"
                .to_owned(),
        );
    }
    Ok(())
}

/// Whether those who know the published roots believe an authority. Of ours it may be a step further than what is
/// published, as the step keeps the root from before it. What is published and cannot be read is known to nobody.
pub(super) fn is_believed((ring, owner): Kept<'_>, published: &str) -> bool {
    let Ok(roots) = material::blocks(material::ROOTS, published) else { return true };
    let knows = |of: &Issuing| material::root(of).is_ok_and(|root| holds(&roots, &root));
    let last = ring.other.as_ref().filter(|_| owner == Owner::Us);
    knows(&ring.signing) || last.is_some_and(knows)
}

fn holds(bundle: &[Block], root: &Block) -> bool {
    bundle.iter().any(|known| known.der == root.der)
}
