//! The documentation as the tests read it: its files, and the YAML in them.
#![allow(dead_code, reason = "each test needs another part")]

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// A path in the checkout.
pub fn project(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the checkout.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = project(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of the documentation, as paths in the checkout.
pub fn files() -> Vec<String> {
    let docs = fs::read_dir(project("docs")).expect("docs/").map(|entry| entry.expect("an entry").file_name());
    let mut files: Vec<String> = docs.map(|name| format!("docs/{}", name.to_str().expect("UTF-8"))).collect();
    files.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"));
    files.extend(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]);
    files.sort();
    files
}

/// A block of YAML, and where it stands.
pub struct Block {
    file: String,
    line: usize,
    /// What it says.
    pub text: String,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a block is for.
pub enum Sort {
    /// An object of Kubernetes.
    Object(Value),
    /// A realms file.
    RealmsFile,
    /// Values of the chart, or some of them.
    Values(Value),
}

/// Every block of YAML in the documentation.
pub fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for file in files() {
        let mut inside = false;
        for (i, line) in read(&file).lines().enumerate() {
            match (inside, line.trim_end()) {
                (false, "```yaml") => {
                    inside = true;
                    blocks.push(Block { file: file.clone(), line: i + 1, text: String::new() });
                }
                (true, "```") => inside = false,
                (true, _) => {
                    let block = blocks.last_mut().expect("begun");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (false, other) => assert!(!other.starts_with("```yml"), "{file}: say ```yaml, so that it is tested"),
            }
        }
        assert!(!inside, "{file}: a block does not end");
    }
    assert!(blocks.len() > 5, "only {} blocks found", blocks.len());
    blocks
}

impl Block {
    /// What this block is, by its content.
    pub fn sort(&self) -> Sort {
        let value: Value = serde_saphyr::from_str(&self.text).unwrap_or_else(|error| panic!("{self}: {error}"));
        if value["apiVersion"].is_string() && value["kind"].is_string() {
            return Sort::Object(value);
        }
        let keys: Vec<&String> = value.as_object().unwrap_or_else(|| panic!("{self}: not a mapping")).keys().collect();
        let realms = value["realms"].as_array().map(Vec::as_slice).unwrap_or_default();
        let files = ["clientSecretFile", "serviceAccountTokenFile", "clientKeyFile"];
        let signs_in = |realm: &Value| files.iter().any(|file| !realm["auth"][file].is_null());
        let is_file = |realm: &Value| signs_in(realm) && realm["caConfigMapRef"].is_null();
        if keys == ["realms"] && realms.iter().all(is_file) {
            return Sort::RealmsFile;
        }
        let known: Value = serde_saphyr::from_str(&read("charts/hallpass/values.yaml")).expect("values.yaml");
        let unknown: Vec<_> = keys.into_iter().filter(|key| known.get(key.as_str()).is_none()).collect();
        assert!(unknown.is_empty(), "{self}: no object, no realms file, and no values of the chart: {unknown:?}");
        Sort::Values(value)
    }
}
