//! What is made from the chart's `values.yaml`.

use std::{collections::BTreeMap, error::Error};

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What a default cannot say: limits, patterns, what must be there.
#[derive(Deserialize)]
struct Rules {
    /// By path: what is laid over what was found there.
    rules: BTreeMap<String, Value>,
}

/// The line after which the realms' comment shows a realm.
const EXAMPLE: &str = "# The Keycloak realms that policies may name; at least one is needed. For each:";

/// The JSON schema (draft 7, which Helm 3 and 4 know) of the values: types from the defaults, descriptions from the comments, the rest from
/// `rules.yaml`. Of a realm, which no default shows, both are in the comment's example.
pub fn schema(text: &str) -> Result<Value, Box<dyn Error>> {
    let Rules { mut rules } = serde_saphyr::from_str(include_str!("rules.yaml"))?;
    let example = example(text);
    let mut values: Value = serde_saphyr::from_str(text)?;
    values["realms"] = serde_saphyr::from_str(&example)?;
    let mut comments = comments(text, "");
    comments.extend(self::comments(&example, "realms[]"));

    let mut schema = typed(&values, "", &comments, &mut rules);
    if let Some(path) = rules.keys().next() {
        return Err(format!("rules.yaml has a rule for {path:?}, which is not in values.yaml").into());
    }
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    Ok(schema)
}

/// The example of a realm in the comments, as YAML.
fn example(text: &str) -> String {
    let lines = text.lines().skip_while(|line| *line != EXAMPLE).skip(1);
    let lines = lines.map_while(|line| line.strip_prefix('#'));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n").collect()
}

/// What is said of each value by path: above it, or at the end of its line.
fn comments(text: &str, below: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut above: Vec<&str> = Vec::new();
    // Of the values around the line: how far each is indented, and its path.
    let mut around: Vec<(usize, String)> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix('#') {
            above.push(comment.trim());
            continue;
        }
        let within = trimmed.trim_start_matches("- ");
        let name = within.split_once(':').map(|(name, _)| name);
        let Some(name) = name.filter(|name| name.chars().all(char::is_alphanumeric)) else {
            above.clear();
            continue;
        };
        let indented = line.len() - within.len();
        around.retain(|(further, _)| *further < indented);
        let parent = around.last().map_or(below, |(_, path)| path);
        // The first item of a list, unless the text is one itself.
        let item = if trimmed != within && parent != below { "[]" } else { "" };
        let path = join(&format!("{parent}{item}"), name);
        let said = match within.split_once(" # ") {
            Some((_, behind)) => behind.trim().to_owned(),
            None => above.join(" "),
        };
        // What follows is the example.
        let said = said.split(" For each:").next().unwrap_or_default().to_owned();
        if !said.is_empty() {
            found.insert(path.clone(), said);
        }
        above.clear();
        around.push((indented, path));
    }
    found
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The schema of one value. A rule that was used is taken out of the rules.
fn typed(value: &Value, path: &str, comments: &BTreeMap<String, String>, rules: &mut BTreeMap<String, Value>) -> Value {
    let mut schema = match value {
        Value::Object(fields) if fields.is_empty() => json!({"type": "object"}),
        Value::Object(fields) => {
            let of =
                |(name, value): (&String, &Value)| (name.clone(), typed(value, &join(path, name), comments, rules));
            let properties: Map<_, _> = fields.iter().map(of).collect();
            json!({"type": "object", "additionalProperties": false, "properties": properties})
        }
        Value::Array(items) => match items.first() {
            Some(item) => json!({"type": "array", "items": typed(item, &format!("{path}[]"), comments, rules)}),
            None => json!({"type": "array"}),
        },
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) | Value::Null => json!({"type": "string"}),
    };
    if let Some(comment) = comments.get(path) {
        schema["description"] = json!(comment);
    }
    if let Some(rule) = rules.remove(path) {
        lay_over(&mut schema, rule);
    }
    schema
}

/// Lays one JSON over another; null takes away.
fn lay_over(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (name, above) in above {
                if above.is_null() {
                    below.remove(&name);
                } else {
                    lay_over(below.entry(name).or_insert(Value::Null), above);
                }
            }
        }
        (below, above) => *below = above,
    }
}

/// The chart's README: what stands in `readme.md`, then each block of `values.yaml`, below the names of its values.
pub fn readme(text: &str) -> String {
    let name = |line: &str| line.split_once(':').map(|(name, _)| format!("`{name}`"));
    let sections = text.split("\n\n").skip(1).map(|block| {
        let names: Vec<_> =
            block.lines().filter(|line| line.starts_with(char::is_alphabetic)).filter_map(name).collect();
        format!("\n### {}\n\n```yaml\n{}\n```\n", names.join(", "), block.trim_end())
    });
    [include_str!("readme.md").to_owned()].into_iter().chain(sections).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "whatever goes wrong fails the test")]
mod tests {
    use super::*;

    const VALUES: &str = "\
# Values.

# How many,
# in all.
replicas: 1
# The Keycloak realms that policies may name; at least one is needed. For each:
#
# - name: prod  # how policies call it
#   auth:
#     # Who it is.
#     clientId: hallpass
#   serviceAccounts:
#   - {serviceAccount: a/b, username: c}
realms: []
ports: [80, 443]
";

    #[test]
    fn types_and_descriptions_are_those_of_the_values() {
        let mut values: Value = serde_saphyr::from_str(VALUES).expect("YAML");
        values["realms"] = serde_saphyr::from_str(&example(VALUES)).expect("YAML");
        let mut said = comments(VALUES, "");
        said.extend(comments(&example(VALUES), "realms[]"));
        let mut rules = BTreeMap::from([("ports[]".to_owned(), json!({"minimum": 1}))]);
        let schema = typed(&values, "", &said, &mut rules);
        assert!(rules.is_empty(), "{rules:?}");
        let properties = &schema["properties"];
        assert_eq!(properties["replicas"], json!({"type": "integer", "description": "How many, in all."}));
        assert_eq!(properties["ports"], json!({"type": "array", "items": {"type": "integer", "minimum": 1}}));
        let realm = &properties["realms"]["items"];
        assert_eq!(realm["additionalProperties"], false);
        assert_eq!(realm["properties"]["name"]["description"], "how policies call it");
        assert_eq!(realm["properties"]["auth"]["properties"]["clientId"]["description"], "Who it is.");
        assert_eq!(realm["properties"]["serviceAccounts"]["items"]["properties"]["username"]["type"], "string");
    }

    #[test]
    fn a_rule_lies_over_what_was_found() {
        let mut below =
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false});
        lay_over(&mut below, json!({"properties": {"a": {"minLength": 1}}, "additionalProperties": null}));
        assert_eq!(below, json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}}));
    }
}
