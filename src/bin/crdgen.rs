//! Development tool: writes the CRDs into the folder that it is given, one file each.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or("usage: crdgen FOLDER")?);
    for crd in hallpass::api::crds() {
        let file = folder.join(format!("{}.yaml", crd.spec.names.plural));
        fs::write(&file, serde_saphyr::to_string(&crd)?)?;
    }
    Ok(())
}
