//! Where two JSON values differ. Pure.

use serde_json::Value;

/// The path of the first difference, as `spec.validations[3].expression`; nothing if both say the same.
/// What only one of them has is a difference. `1` and `1.0` are the same number.
pub fn difference(shipped: &Value, live: &Value) -> Option<String> {
    match (shipped, live) {
        (Value::Object(shipped), Value::Object(live)) => shipped
            .iter()
            .find_map(|(key, value)| {
                live.get(key).map_or(Some(String::new()), |live| difference(value, live)).map(|path| below(key, &path))
            })
            .or_else(|| live.keys().find(|key| !shipped.contains_key(*key)).cloned()),
        (Value::Array(shipped), Value::Array(live)) => {
            let common = shipped.iter().zip(live).enumerate();
            common
                .map(|(i, (shipped, live))| (i, difference(shipped, live)))
                .find_map(|(i, path)| path.map(|path| below(&format!("[{i}]"), &path)))
                .or_else(|| (shipped.len() != live.len()).then(|| format!("[{}]", shipped.len().min(live.len()))))
        }
        (Value::Number(shipped), Value::Number(live)) => {
            (shipped != live && shipped.as_f64() != live.as_f64()).then(String::new)
        }
        (shipped, live) => (shipped != live).then(String::new),
    }
}

fn below(step: &str, path: &str) -> String {
    if path.is_empty() || path.starts_with('[') { format!("{step}{path}") } else { format!("{step}.{path}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_path_leads_to_the_first_difference() {
        let shipped = json!({"spec": {"failurePolicy": "Fail", "validations": [{"expression": "a"}, {"expression": "b"}], "minimum": 1.0}});
        let at = |pointer: &str, value: Value| {
            let mut live = shipped.clone();
            *live.pointer_mut(pointer).expect("there") = value;
            difference(&shipped, &live)
        };
        assert_eq!(difference(&shipped, &shipped), None);
        assert_eq!(at("/spec/minimum", json!(1)), None);
        for (pointer, value, path) in [
            ("/spec/validations/1/expression", json!("true"), "spec.validations[1].expression"),
            ("/spec/validations/1", json!({"expression": "b", "message": "m"}), "spec.validations[1].message"),
            ("/spec/validations/1", json!({}), "spec.validations[1].expression"),
            ("/spec/validations", json!([{"expression": "a"}]), "spec.validations[1]"),
            ("/spec/validations", json!([{"expression": "a"}, {"expression": "b"}, {}]), "spec.validations[2]"),
            ("/spec/validations", json!({}), "spec.validations"),
            ("/spec/failurePolicy", json!("Ignore"), "spec.failurePolicy"),
            ("/spec/failurePolicy", json!(null), "spec.failurePolicy"),
            ("/spec/minimum", json!(2), "spec.minimum"),
            ("/spec", json!(null), "spec"),
        ] {
            assert_eq!(at(pointer, value.clone()).as_deref(), Some(path), "{pointer} = {value}");
        }
    }
}
