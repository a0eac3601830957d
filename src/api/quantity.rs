//! Numbers as people write them: a count or a percentage of the instances, as `maxUnavailable` of a Deployment; an amount of CPU or
//! memory.
use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// `5` or `"25%"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrPercent {
    /// A number of instances.
    Count(i32),
    /// Digits and a percent sign.
    Percent(String),
}

impl IntOrPercent {
    /// The number of instances this means for `total`, a percentage rounded up; never negative, never above 10,000
    /// times. Text that is no percentage counts as 0: the CRD refuses it, and the planner must be total.
    pub fn rounded_up(&self, total: i32) -> i32 {
        self.resolve(total, 99)
    }

    /// As [`Self::rounded_up`], a percentage rounded down.
    pub fn rounded_down(&self, total: i32) -> i32 {
        self.resolve(total, 0)
    }

    fn resolve(&self, total: i32, bias: i64) -> i32 {
        match self {
            Self::Count(count) => (*count).max(0),
            Self::Percent(text) => {
                let percent: i64 = text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0);
                let instances = (percent.clamp(0, 100) * i64::from(total.max(0)) + bias) / 100;
                i32::try_from(instances).unwrap_or(i32::MAX)
            }
        }
    }
}

impl JsonSchema for IntOrPercent {
    fn schema_name() -> Cow<'static, str> {
        "IntOrPercent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Bounds of an int-or-string cannot be said in a structural schema, so a CEL rule says them.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 5,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? self >= 0 && self <= 10000 : self.matches('^(100|[1-9]?[0-9])%$')",
                "message": "must be a count from 0 to 10000, such as 5, or a percentage from 0% to 100%, such as \"25%\""
            }]
        })
    }
}

/// An amount of CPU or memory, as Kubernetes reads it, in its smallest unit, rounded up: `1` and `1000m` come to the same. None:
/// it is none.
pub fn billionths(text: &str) -> Option<i128> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let power = |base: i128, letters: &str| {
        let at = letters.find(unit.get(..1)?)?;
        base.checked_pow(u32::try_from(at).ok()? + 1)?.checked_mul(BILLION)
    };
    let unit = match unit {
        "" => BILLION,
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        _ if unit.len() == 2 && unit.ends_with('i') => power(1_024, "KMGTPE")?,
        _ if unit.len() == 1 => power(1_000, "kMGTPE")?,
        _ => {
            let exponent: u32 = unit.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_i128.checked_pow(exponent)?.checked_mul(BILLION)?
        }
    };
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = digits.checked_mul(unit)?;
    Some(scaled / scale + i128::from(scaled % scale != 0))
}

const BILLION: i128 = 1_000_000_000;

/// A number that need not be told.
#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
pub(super) fn is_zero(value: &i32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_a_deployment_rounds_them() {
        let quarter = IntOrPercent::Percent("25%".into());
        assert_eq!((quarter.rounded_up(10), quarter.rounded_down(10)), (3, 2));
        assert_eq!((quarter.rounded_up(0), quarter.rounded_down(0)), (0, 0));
        assert_eq!((quarter.rounded_up(8), quarter.rounded_down(8)), (2, 2));
        assert_eq!(IntOrPercent::Percent("100%".into()).rounded_down(10_000), 10_000);
    }

    #[test]
    fn amounts_are_the_same_in_other_words() {
        for (a, b) in [("1", "1000m"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("1E", "1000P"), ("1.0", "1")]
        {
            assert!(billionths(a).is_some() && billionths(a) == billionths(b), "{a} {b}");
        }
        assert!(billionths("1G") < billionths("1Gi"));
        for none in ["", "many", "i", "1x", "1Ki2", "-1", "1e", "99999999999999999999999999999999Ei"] {
            assert_eq!(billionths(none), None, "{none}");
        }
    }

    #[test]
    fn nonsense_counts_as_zero_and_never_panics() {
        assert_eq!(IntOrPercent::Percent("many".into()).rounded_up(10), 0);
        assert_eq!(IntOrPercent::Count(-3).rounded_down(10), 0);
    }
}
