//! Development tool: writes the parts of the chart that are made from others, into the folder of the chart.
//!
//! * `files/crds/*.yaml` from the types in `api`.
//! * `values.schema.json` from `values.yaml`, its comments, and [the rules](values::schema) that a default cannot say.
//! * `README.md` from `values.yaml`.

mod values;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

/// Each file that is made, below the folder of the chart, and what is to be in it.
fn generated(chart: &Path) -> Result<Vec<(PathBuf, String)>, Box<dyn Error>> {
    let mut files = Vec::new();
    for crd in hallpass::api::crds() {
        let file = format!("files/crds/{}.yaml", crd.spec.names.plural);
        files.push((chart.join(file), serde_saphyr::to_string(&crd)?));
    }
    let text = fs::read_to_string(chart.join("values.yaml"))?;
    let schema = serde_json::to_string_pretty(&values::schema(&text)?)?;
    files.push((chart.join("values.schema.json"), schema + "\n"));
    files.push((chart.join("README.md"), values::readme(&text)));
    Ok(files)
}

fn main() -> Result<(), Box<dyn Error>> {
    let chart = PathBuf::from(env::args_os().nth(1).ok_or("usage: chartgen FOLDER-OF-THE-CHART")?);
    for (file, content) in generated(&chart)? {
        fs::write(&file, content).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "whatever goes wrong fails the test")]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn what_is_made_from_others_is_not_stale() {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/hallpass");
        for (file, content) in super::generated(&chart).expect("the chart's files") {
            assert!(
                fs::read_to_string(&file).expect("a file") == content,
                "{} is stale: run  cargo run --bin chartgen charts/hallpass  and commit what it writes",
                file.display()
            );
        }
    }
}
