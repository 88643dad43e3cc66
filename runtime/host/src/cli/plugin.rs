//! `reipaz plugin`: build, install, list, inspect.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    build,
    client::{Client, Connection, escape},
    exit::{Done, Failure},
    output,
    runs::short_time,
};
use crate::facade::{InstalledPlugin, PluginView};

/// Builds, installs and shows plugins, the components that steps use.
#[derive(Clone, Debug, clap::Subcommand)]
#[command(after_help = "\
Example:
  reipaz plugin install ./score --grant 'http=GET api.example.com'
  reipaz plugin list")]
pub(crate) enum Command {
    Build(BuildArgs),
    Install(InstallArgs),
    List(ListArgs),
    Inspect(InspectArgs),
}

/// Builds a step into a component and prints where it lies.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz plugin build ./score")]
pub(crate) struct BuildArgs {
    /// The step's folder
    #[arg(default_value = ".", value_name = "DIR")]
    dir: PathBuf,
}

/// Installs a component on a host, or builds a step's folder and installs that.
///
/// A plugin can reach nothing outside but what it is granted: `http=METHOD HOST[:PORT]`, where the method may be `*`
/// and the host `*.example.com`. Without --grant it keeps what it had.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz plugin install ./score
  reipaz plugin install score.wasm --grant 'http=GET api.example.com' --grant 'http=POST api.example.com'")]
pub(crate) struct InstallArgs {
    /// A component (.wasm), or a step's folder
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// What it may reach. May be repeated
    #[arg(long = "grant", value_name = "KIND=VALUE")]
    grants: Vec<String>,
    /// Take away what it was granted before
    #[arg(long, conflicts_with = "grants")]
    no_grants: bool,
    /// Take the place of the same version with other content; runs and published workflows keep what they have
    #[arg(long)]
    replace: bool,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Lists the plugins of a host.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz plugin list")]
pub(crate) struct ListArgs {
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Shows one plugin: its schemas, grants, versions.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz plugin inspect http_request
  reipaz plugin inspect acme/score@1.2.0")]
pub(crate) struct InspectArgs {
    /// The plugin: NAME or NAME@VERSION
    name: String,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize, Deserialize)]
struct Page {
    plugins: Vec<PluginView>,
}

/// See [`Command`].
pub(crate) async fn run(command: Command) -> Done {
    match command {
        Command::Build(args) => {
            output::line(&build::component(&args.dir).await?.display().to_string());
            Ok(())
        }
        Command::Install(args) => install(args).await,
        Command::List(args) => list(args).await,
        Command::Inspect(args) => inspect(args).await,
    }
}

async fn install(args: InstallArgs) -> Done {
    let client = args.connection.client()?;
    let file = if args.path.is_dir() { build::component(&args.path).await? } else { args.path.clone() };
    let grants = if args.no_grants { Grants::None } else { Grants::These(&args.grants) };
    let installed = send(&client, &file, grants, args.replace).await?;
    if args.json || !output::is_terminal() {
        output::json(&installed);
        return Ok(());
    }
    let plugin = &installed.plugin;
    let state = if installed.created { "installed" } else { "was installed already" };
    output::line(&format!("{}@{} {state}: {}", plugin.name, plugin.version, plugin.summary));
    warn_of_missing_grants(plugin);
    Ok(())
}

/// What a component is to be granted.
pub(crate) enum Grants<'a> {
    /// These; none of them: what it had.
    These(&'a [String]),
    /// Nothing.
    None,
}

/// Installs a component.
pub(crate) async fn send(
    client: &Client,
    file: &Path,
    grants: Grants<'_>,
    replace: bool,
) -> Result<InstalledPlugin, Failure> {
    let wasm = std::fs::read(file)
        .map_err(|error| Failure::usage(format!("cannot read the component {}: {error}", file.display())))?;
    let mut query = match grants {
        Grants::None => vec!["grants=none".to_owned()],
        Grants::These(grants) => grants.iter().map(|grant| format!("grant={}", escape(grant))).collect(),
    };
    if replace {
        query.push("replace=true".to_owned());
    }
    client
        .post_bytes(&format!("/v1/plugins?{}", query.join("&")), "application/wasm", Bytes::from(wasm))
        .await?
        .json()
}

/// Tells what a plugin asks for and has not got.
pub(crate) fn warn_of_missing_grants(plugin: &PluginView) {
    for want in &plugin.wants {
        let has = plugin.grants.get(&want.kind).is_some_and(|values| !values.is_empty());
        if !has {
            output::note(&format!(
                "it asks for {}={} ({}); give it with --grant",
                want.kind, want.value, want.why
            ));
        }
    }
}

async fn list(args: ListArgs) -> Done {
    let page: Page = args.connection.client()?.get("/v1/plugins").await?;
    if args.json || !output::is_terminal() {
        output::json(&page);
        return Ok(());
    }
    let mut rows = vec![["PLUGIN", "SILENT", "GRANTS", "SUMMARY"].map(ToOwned::to_owned).to_vec()];
    rows.extend(page.plugins.iter().map(|plugin| {
        vec![
            format!("{}@{}", plugin.name, plugin.version),
            if plugin.silent { "yes" } else { "no" }.to_owned(),
            granted(plugin),
            plugin.summary.clone(),
        ]
    }));
    output::columns(&rows);
    Ok(())
}

fn granted(plugin: &PluginView) -> String {
    let each = plugin
        .grants
        .iter()
        .flat_map(|(kind, values)| values.iter().map(move |value| format!("{kind}={value}")));
    let all: Vec<String> = each.collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

async fn inspect(args: InspectArgs) -> Done {
    let (name, version) = match args.name.rsplit_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (args.name.as_str(), None),
    };
    let version = version.map(|version| format!("?version={}", escape(version))).unwrap_or_default();
    let plugin: PluginView =
        args.connection.client()?.get(&format!("/v1/plugins/{}{version}", escape(name))).await?;
    if args.json || !output::is_terminal() {
        output::json(&plugin);
        return Ok(());
    }
    let origin = if plugin.standard { "came with the host" } else { "installed" };
    output::line(&format!("{}@{}  {}", plugin.name, plugin.version, plugin.summary));
    output::line(&format!("  {origin} {} UTC, {} bytes", short_time(plugin.installed_at), plugin.size_bytes));
    output::line(&format!("  digest    {}", plugin.digest));
    output::line(&format!("  versions  {}", plugin.versions.join(", ")));
    output::line(&format!("  silent    {}", if plugin.silent { "yes" } else { "no" }));
    output::line(&format!("  grants    {}", granted(&plugin)));
    warn_of_missing_grants(&plugin);
    for (title, schema) in [("with", &plugin.input_schema), ("output", &plugin.output_schema)] {
        if let Some(schema) = schema {
            output::line(&format!("\n{title} (JSON Schema):"));
            output::json(schema);
        }
    }
    Ok(())
}
