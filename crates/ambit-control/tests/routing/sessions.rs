//! Sessions of rows: one endpoint stands behind each backend, and the client repeats what it was told.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use ambit_route::model::Target;
use ambit_route::session::{Held, Seal, tag};
use ambit_route::{Forward, Request, Selected, Table};
use ambit_types::ServiceKey;

use crate::request::Head;
use crate::schema::Row;

/// When all rows run, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

/// Not a keyed hash, but different for different bytes, which is what the rows need.
fn mac(bytes: &[u8]) -> [u8; 16] {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, bytes).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(1) << 64 | half(2)).to_be_bytes()
}

fn seal() -> Seal<'static> {
    Seal { mac: &mac, now: NOW }
}

/// What stands for the endpoint of a port of a service.
fn endpoint(to: (&ServiceKey, u16)) -> u64 {
    tag(to, &"the only one".into(), &mac)
}

/// The session that a request belongs to.
pub(crate) fn held<'t>(
    table: &'t Table,
    selected: &Selected<'t>,
    called: (&'t ServiceKey, u16),
    request: &Request<'_, Vec<(String, String)>>,
) -> Option<Held<'t>> {
    let exists = |target: Option<&Target>, tag: u64| match target {
        Some(Target::Service { service, port }) => endpoint((service, *port)) == tag,
        Some(Target::Invalid { .. }) => false,
        None => endpoint(called) == tag,
    };
    selected.session(table, Some(called), request, &seal(), exists)
}

/// The line by which the response of a request that went on tells its client of the session.
pub(crate) fn line<'t>(
    table: &'t Table,
    forward: &Forward<'t>,
    called: (&'t ServiceKey, u16),
    session: Option<Held<'t>>,
) -> Option<(String, String)> {
    let to = match forward.target() {
        Some(Target::Service { service, port }) => (service, *port),
        Some(Target::Invalid { .. }) => return None,
        None => called,
    };
    let stay = table.stay(forward.by.map(|(rule, _)| rule), to)?;
    let told = stay.told(endpoint(to), session.map(|held| held.session), &seal());
    told.map(|(name, value)| (name.to_owned(), value))
}

/// What a client repeats of a response, if the row's does.
pub(crate) fn told(row: &Row, response: Option<&Head>) -> Option<(String, String)> {
    let (name, response) = (row.request.stays.as_ref()?, response?);
    if let Some(value) = response.joined(name) {
        return Some((name.clone(), value));
    }
    let cookie = response.joined("set-cookie")?;
    let (pair, _) = cookie.split_once(';')?;
    pair.starts_with(&format!("{name}=")).then(|| ("cookie".to_owned(), pair.to_owned()))
}
