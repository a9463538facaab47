//! Times, repetitions and faults.

use ambit_types::written::{
    Abort, Decimal, Delay, Fault, Percentage, RetryPolicy, VirtualFault, VirtualRetries,
};

use super::Import;

/// Most attempts after the first.
const ATTEMPTS_MAX: i64 = 20;
/// Longest time in seconds: five digits, as the Gateway API writes it.
const SECONDS_MAX: u64 = 99_999;
/// Ten-thousandths in one.
const ONE: u64 = 10_000;
/// gRPC's `CANCELLED` and `UNAVAILABLE`, which Istio repeats unless told otherwise.
const GRPC_CODES: [i64; 2] = [1, 14];

impl Import<'_> {
    /// A duration in milliseconds.
    pub(super) fn duration(&mut self, path: &str, text: &str) -> Option<u64> {
        let found = millis(text).filter(|found| *found <= SECONDS_MAX * 1000);
        if found.is_none() {
            let words = format!(
                "{text:?} is no duration of at most {SECONDS_MAX}s in whole milliseconds, such as 1.5s"
            );
            self.bad(path, words);
        }
        found
    }

    pub(super) fn retries(&mut self, path: &str, of: &VirtualRetries) -> RetryPolicy {
        self.unread(
            path,
            &[
                ("retryRemoteLocalities", of.retry_remote_localities),
                ("retryIgnorePreviousHosts", of.retry_ignore_previous_hosts),
                ("backoff", of.backoff),
            ],
        );
        if of.attempts.is_some_and(|attempts| !(0..=ATTEMPTS_MAX).contains(&attempts)) {
            self.bad(format!("{path}.attempts"), format!("not between 0 and {ATTEMPTS_MAX}"));
        }
        let mut made = RetryPolicy {
            // As in Istio's own form, where a number that is absent is 0.
            attempts: Some(of.attempts.unwrap_or(0)),
            // Whoever lists conditions has said that his requests may be repeated; Istio asks for no more.
            consent: Some("AnyMethod".to_owned()),
            ..RetryPolicy::default()
        };
        match of.retry_on.as_deref().filter(|words| !words.is_empty()) {
            None => made.grpc_codes = GRPC_CODES.to_vec(),
            Some(words) => {
                made.conditions = Some(Vec::new());
                for word in words.split(',').map(str::trim) {
                    if !repeat_on(word, &mut made) {
                        self.not_imported(format!("{path}.retryOn"), &format!("{word:?}"));
                    }
                }
            }
        }
        made
    }

    /// Faults; nothing if they are for no request.
    pub(super) fn fault(&mut self, path: &str, of: &VirtualFault) -> Option<Fault> {
        let delay = of.delay.as_ref().and_then(|delay| {
            let at = format!("{path}.delay");
            self.unread(&at, &[("percent", delay.percent), ("exponentialDelay", delay.exponential_delay)]);
            let text = delay.fixed_delay.as_deref().unwrap_or_default();
            let pause = self.duration(&format!("{at}.fixedDelay"), text);
            let percent = self.whole_percent(&at, delay.percentage.as_ref())?;
            Some(Delay { pause: written(pause?), percent: Some(percent) })
        });
        let abort = of.abort.as_ref().and_then(|abort| {
            let at = format!("{path}.abort");
            self.unread(&at, &[("grpcStatus", abort.grpc_status), ("http2Error", abort.http2_error)]);
            if !abort.http_status.is_some_and(|status| (200..=599).contains(&status)) {
                self.bad(format!("{at}.httpStatus"), "not between 200 and 599");
            }
            let percent = self.whole_percent(&at, abort.percentage.as_ref())?;
            Some(Abort { http_status: abort.http_status, grpc_status: None, percent: Some(percent) })
        });
        (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
    }

    /// A share in whole percent; none if there is none.
    fn whole_percent(&mut self, path: &str, of: Option<&Percentage>) -> Option<i64> {
        let at = format!("{path}.percentage");
        let Some(of) = of else {
            // Istio would do nothing, which nobody means who writes a fault.
            self.bad(at, "the field is missing");
            return None;
        };
        let share = u64::from(self.percentage(&at, of));
        if share % ONE != 0 {
            self.not_imported(at, "a part of a percent");
        }
        i64::try_from(share / ONE).ok().filter(|percent| *percent > 0)
    }
}

/// Adds what a word of `retryOn` means; whether it means anything here.
fn repeat_on(word: &str, to: &mut RetryPolicy) -> bool {
    let (conditions, codes, grpc): (&[&str], &[i64], &[i64]) = match word {
        "5xx" => (&["server-error", "reset", "connect-failure", "refused-stream", "try-timeout"], &[], &[]),
        "gateway-error" => (&["gateway-error"], &[], &[]),
        "reset" => (&["reset", "connect-failure", "refused-stream"], &[], &[]),
        "connect-failure" => (&["connect-failure"], &[], &[]),
        "refused-stream" => (&["refused-stream"], &[], &[]),
        "retriable-4xx" => (&[], &[409], &[]),
        // Says only that codes may follow.
        "retriable-status-codes" => (&[], &[], &[]),
        "cancelled" => (&[], &[], &[1]),
        "deadline-exceeded" => (&[], &[], &[4]),
        "resource-exhausted" => (&[], &[], &[8]),
        "internal" => (&[], &[], &[13]),
        "unavailable" => (&[], &[], &[14]),
        _ => match word.parse::<i64>() {
            Ok(code) if (400..=599).contains(&code) => {
                to.codes.push(code);
                return true;
            }
            Ok(_) | Err(_) => return false,
        },
    };
    let known = to.conditions.get_or_insert_default();
    for condition in conditions {
        if !known.iter().any(|one| one == condition) {
            known.push((*condition).to_owned());
        }
    }
    to.codes.extend(codes);
    to.grpc_codes.extend(grpc);
    true
}

/// A duration as Istio writes it (Go's form, down to milliseconds) in milliseconds.
pub(super) fn millis(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(end);
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
        let (factor, after) = units.iter().find_map(|(name, ms)| Some((*ms, unit.strip_prefix(name)?)))?;
        let parts = u64::from(Decimal(number.to_owned()).ten_thousandths()?) * factor;
        if parts % ONE != 0 {
            return None;
        }
        total = total.checked_add(parts / ONE)?;
        rest = after;
    }
    Some(total)
}

/// The same as the Gateway API writes it.
pub(super) fn written(millis: u64) -> String {
    match (millis / 1000, millis % 1000) {
        (seconds, 0) => format!("{seconds}s"),
        (0, rest) => format!("{rest}ms"),
        (seconds, rest) => format!("{seconds}s{rest}ms"),
    }
}
