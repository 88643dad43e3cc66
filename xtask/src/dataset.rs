//! The demo's data: Seattle's daily weather, 2012 to 2015, 1,461 days as NOAA recorded them, from the `vega-datasets`
//! package (npm), or the older `vega_datasets` (pip) where npm is missing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    fetch::{self, Packaged},
    shell,
};

/// The file's name in the folder that [`ensure`] gives.
pub(crate) const FILE: &str = "seattle-weather.csv";

const NPM: Packaged = Packaged {
    package: "vega-datasets@3.2.1",
    file: "package/data/seattle-weather.csv",
    sha256: "0845078a290b48e3149ab8639966824110a251db4e06fc144c06ebb534af23be",
};

const PIP: Packaged = Packaged {
    package: "vega_datasets==0.9.0",
    file: "vega_datasets/_data/seattle-weather.csv",
    sha256: "62f0609f787158128aa2bd102967173a4953122dd4f872bf1d502cae1037df0b",
};

/// Makes sure that the data is there; gives its folder.
pub(crate) fn ensure() -> Result<PathBuf> {
    let folder = shell::root().join(".reipaz/data");
    let file = folder.join(FILE);
    if !file.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let bytes = download(&folder)?;
        // A rename, so that an interrupted set-up leaves no half file behind.
        let partial = folder.join(format!("{FILE}.partial"));
        fs::write(&partial, bytes)?;
        fs::rename(&partial, &file)?;
    }
    Ok(folder)
}

fn download(scratch: &Path) -> Result<Vec<u8>> {
    let mut refusals = Vec::new();
    if shell::exists("npm") {
        println!("Fetching Seattle's weather from {} (17 MB, once)", NPM.package);
        match fetch::from_npm(&NPM, scratch) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => refusals.push(format!("npm: {error:#}")),
        }
    } else {
        refusals.push("npm: not installed".to_owned());
    }
    if let Some(pip) = fetch::pip() {
        println!("Fetching Seattle's weather from {} (0.2 MB, once)", PIP.package);
        match fetch::from_pip(&PIP, pip, scratch) {
            Ok(bytes) => return Ok(iso_dates(&bytes)),
            Err(error) => refusals.push(format!("pip: {error:#}")),
        }
    } else {
        refusals.push("pip: not installed".to_owned());
    }
    bail!(
        "the demo's data set could not be fetched:\n  {}\nInstall Node.js (for npm) or Python (for pip), or put the \
         file yourself at .reipaz/data/{FILE}.",
        refusals.join("\n  ")
    )
}

/// The older package writes its dates with slashes, and nothing else has one.
fn iso_dates(csv: &[u8]) -> Vec<u8> {
    csv.iter().map(|&byte| if byte == b'/' { b'-' } else { byte }).collect()
}
