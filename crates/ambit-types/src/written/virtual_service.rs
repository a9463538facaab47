//! VirtualService, of group `networking.istio.io`: Istio's older form of a route, read as an import.
//!
//! Fields that are imported have types; those that are known and not imported are only noticed ([`Given`]), so that
//! whoever reads them can refuse by name instead of passing over a condition.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bodies;

bodies! {
    /// The body of a `VirtualService`.
    VirtualService {
        /// Whom it is for: short names of services of its own namespace, or whole ones.
        hosts: Vec<String>,
        /// For which gateways; absent means `mesh`, which is all that is imported.
        gateways: Vec<String>,
        /// Rules for HTTP; the first that agrees counts.
        http: Vec<VirtualRule>,
        /// Namespaces it is shown to; absent means all.
        export_to: Vec<String>,
        /// Not imported.
        tls: Given,
        /// Not imported.
        tcp: Given,
    }

    /// A rule of a VirtualService.
    VirtualRule {
        /// Its name.
        name: Option<String>,
        /// Any of these; none means everything.
        r#match: Vec<VirtualMatch>,
        /// Where requests go.
        route: Vec<VirtualRoute>,
        /// An answer with another address.
        redirect: Option<VirtualRedirect>,
        /// What is forwarded instead.
        rewrite: Option<VirtualRewrite>,
        /// How long the whole request may take; 0 means for ever.
        timeout: Option<String>,
        /// When to try again.
        retries: Option<VirtualRetries>,
        /// Faults put in on purpose.
        fault: Option<VirtualFault>,
        /// Where copies go.
        mirror: Option<VirtualDestination>,
        /// Of how many requests; absent means all.
        mirror_percentage: Option<Percentage>,
        /// Which pages of other origins may call.
        cors_policy: Option<VirtualCors>,
        /// Headers to change.
        headers: Option<VirtualHeaders>,
        /// Not imported.
        mirrors: Given,
        /// Not imported.
        mirror_percent: Given,
        /// Not imported.
        direct_response: Given,
        /// Not imported.
        delegate: Given,
    }

    /// What a request must be like; all fields given must agree.
    VirtualMatch {
        /// For people.
        name: Option<String>,
        /// Its path.
        uri: Option<StringMatch>,
        /// Its method.
        method: Option<StringMatch>,
        /// Its headers; one without a comparison must be there.
        headers: BTreeMap<String, StringMatch>,
        /// Its query parameters.
        query_params: BTreeMap<String, StringMatch>,
        /// Whether letters of the path have a case; true is not imported.
        ignore_uri_case: Option<bool>,
        /// Not imported.
        scheme: Given,
        /// Not imported.
        authority: Given,
        /// Not imported.
        port: Given,
        /// Not imported.
        source_labels: Given,
        /// Not imported.
        source_namespace: Given,
        /// Not imported.
        gateways: Given,
        /// Not imported.
        without_headers: Given,
        /// Not imported.
        stat_prefix: Given,
    }

    /// How a text is compared: by one of these.
    StringMatch {
        /// Equal.
        exact: Option<String>,
        /// Begins with these letters.
        prefix: Option<String>,
        /// The whole text is of this form.
        regex: Option<String>,
    }

    /// A share of the requests.
    VirtualRoute {
        /// Where it goes.
        destination: VirtualDestination,
        /// How large it is; where there are several, absent means nothing.
        weight: Option<i64>,
        /// Headers to change on the way there.
        headers: Option<VirtualHeaders>,
    }

    /// A service.
    VirtualDestination {
        /// Its host.
        host: String,
        /// Its port; absent means the only one.
        port: Option<VirtualPort>,
        /// Not imported.
        subset: Given,
    }

    /// A port of a service.
    VirtualPort {
        /// Its number.
        number: i64,
    }

    /// Headers to change, in either direction.
    VirtualHeaders {
        /// Of requests.
        request: Option<VirtualHeaderChange>,
        /// Of responses.
        response: Option<VirtualHeaderChange>,
    }

    /// Headers to change.
    VirtualHeaderChange {
        /// Replaces every line of the name.
        set: BTreeMap<String, String>,
        /// Adds a line.
        add: BTreeMap<String, String>,
        /// Takes every line of the name away.
        remove: Vec<String>,
    }

    /// An answer with another address.
    VirtualRedirect {
        /// The whole path.
        uri: Option<String>,
        /// Host name.
        authority: Option<String>,
        /// Port.
        port: Option<i64>,
        /// `http` or `https`.
        scheme: Option<String>,
        /// 301 (the default), 302, 303, 307 or 308.
        redirect_code: Option<i64>,
        /// Not imported.
        derive_port: Given,
    }

    /// What is forwarded instead.
    VirtualRewrite {
        /// In place of what the rule matches of the path.
        uri: Option<String>,
        /// Host name.
        authority: Option<String>,
        /// Not imported.
        uri_regex_rewrite: Given,
    }

    /// When to try again.
    VirtualRetries {
        /// Attempts after the first; 0 means none.
        attempts: Option<i64>,
        /// How long one attempt may take.
        per_try_timeout: Option<String>,
        /// Words of Envoy and status codes, with commas between.
        retry_on: Option<String>,
        /// Not imported.
        retry_remote_localities: Given,
        /// Not imported.
        retry_ignore_previous_hosts: Given,
        /// Not imported.
        backoff: Given,
    }

    /// Faults put in on purpose.
    VirtualFault {
        /// A pause.
        delay: Option<VirtualDelay>,
        /// An answer in place of the request.
        abort: Option<VirtualAbort>,
    }

    /// A pause.
    VirtualDelay {
        /// How long.
        fixed_delay: Option<String>,
        /// Of how many requests.
        percentage: Option<Percentage>,
        /// Not imported.
        percent: Given,
        /// Not imported.
        exponential_delay: Given,
    }

    /// An answer in place of the request.
    VirtualAbort {
        /// Its status.
        http_status: Option<i64>,
        /// Of how many requests.
        percentage: Option<Percentage>,
        /// Not imported.
        grpc_status: Given,
        /// Not imported.
        http2_error: Given,
    }

    /// A share in percent, which need not be whole.
    Percentage {
        /// 0 to 100.
        value: Decimal,
    }

    /// Which pages of other origins may call.
    VirtualCors {
        /// Origins; only exact ones are imported.
        allow_origins: Vec<StringMatch>,
        /// Methods.
        allow_methods: Vec<String>,
        /// Request headers.
        allow_headers: Vec<String>,
        /// Response headers that scripts may read.
        expose_headers: Vec<String>,
        /// For how long a preflight answer may be kept.
        max_age: Option<String>,
        /// Whether requests may carry cookies.
        allow_credentials: Option<bool>,
        /// Not imported.
        allow_origin: Given,
        /// Not imported.
        unmatched_preflights: Given,
    }
}

/// Whether a field is there, whatever it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given(pub bool);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

impl Serialize for Given {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(self.0)
    }
}

/// A number as it was written, such as `0.1`; empty if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decimal(pub String);

impl Decimal {
    /// The number in ten-thousandths; none if it is negative, has a finer part, or is no such number.
    pub fn ten_thousandths(&self) -> Option<u32> {
        let (whole, part) = self.0.split_once('.').unwrap_or((self.0.as_str(), ""));
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let part = part.trim_end_matches('0');
        if whole.is_empty() || whole.len() > 5 || part.len() > 4 || !is_number(whole) || !is_number(part) {
            return None;
        }
        format!("{whole}{part:0<4}").parse().ok()
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DecimalVisitor)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

struct DecimalVisitor;

impl Visitor<'_> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
        // What was written as one is read again as what it was.
        Ok(Decimal(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_to_the_ten_thousandth() {
        let rows = [
            ("10", Some(100_000)),
            ("0.1", Some(1_000)),
            ("99.9999", Some(999_999)),
            ("0.50000", Some(5_000)),
            ("0.00001", None),
            ("-1", None),
            ("1e3", None),
            ("NaN", None),
            ("", None),
        ];
        for (text, want) in rows {
            assert_eq!(Decimal(text.to_owned()).ten_thousandths(), want, "{text}");
        }
    }
}
