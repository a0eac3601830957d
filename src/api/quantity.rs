//! A count or a percentage of the instances, as `maxUnavailable` of a Deployment.
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
    fn nonsense_counts_as_zero_and_never_panics() {
        assert_eq!(IntOrPercent::Percent("many".into()).rounded_up(10), 0);
        assert_eq!(IntOrPercent::Count(-3).rounded_down(10), 0);
    }
}
