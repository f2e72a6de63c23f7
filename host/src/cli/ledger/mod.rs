//! `stream ledger`: list and show ledgers, verify them whole, and take and check receipts.

mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{CliError, Output, cell, fields, items, table};
use crate::ledger::entry::ByDigest;
use crate::ledger::{Receipt, VerifierKey};
use crate::name::{LedgerName, TopicName};
use verify::Verify;

/// List and show ledgers, verify them, and take and check receipts of entries
#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// List all ledgers
    List,
    /// Show how far a ledger is, its root, and the key that verifies it
    Show {
        /// The ledger
        #[arg(value_parser = LedgerName::parse)]
        name: LedgerName,
    },
    Verify(Verify),
    Prove(Prove),
    VerifyProof(VerifyProof),
}

/// Take the receipt of an entry: a file that proves it offline
#[derive(Debug, Args)]
struct Prove {
    /// The ledger
    #[arg(value_parser = LedgerName::parse)]
    name: LedgerName,

    /// The topic of the record
    #[arg(long, value_parser = TopicName::parse, requires_all = ["partition", "offset"])]
    topic: Option<TopicName>,

    /// The partition of the record
    #[arg(long, value_name = "N", requires = "topic")]
    partition: Option<u32>,

    /// The offset of the record
    #[arg(long, value_name = "N", requires = "topic")]
    offset: Option<u64>,

    /// The id of the event, in place of topic, partition and offset; the newest that has it
    #[arg(long, conflicts_with = "topic", required_unless_present = "topic")]
    id: Option<String>,

    /// Write to this file and not to standard output; `.tlog-proof` is its usual ending
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Check a receipt offline, and show the entry that it proves
#[derive(Debug, Args)]
struct VerifyProof {
    /// The receipt, as `prove` wrote it
    file: PathBuf,

    /// The key of the ledger, as `ledger show` shows it
    #[arg(long, value_name = "KEY", value_parser = VerifierKey::parse)]
    vkey: VerifierKey,

    /// The event itself, if the entry is its digest
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

impl LedgerArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self.command {
            LedgerCommand::List => output.show(&client.list("ledgers").await?, human_list)?,
            LedgerCommand::Show { name } => {
                let request = client.request(Method::GET, &["ledgers", name.as_str()]);
                output.show(&client.json(request).await?, human)?;
            }
            LedgerCommand::Verify(verify) => verify.run(client, output).await?,
            LedgerCommand::Prove(prove) => prove.run(client, output).await?,
            LedgerCommand::VerifyProof(verify) => verify.run(output)?,
        }
        Ok(())
    }
}

impl Prove {
    async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let request = client.request(Method::GET, &["ledgers", self.name.as_str(), "proof"]);
        let request = match (&self.topic, &self.id) {
            (Some(topic), _) => request
                .query(&[("topic", topic.as_str())])
                .query(&[("partition", self.partition.map(u64::from)), ("offset", self.offset)]),
            (None, id) => request.query(&[("id", id)]),
        };
        let receipt = client.send(request).await?.text().await;
        let receipt = receipt.map_err(|error| client.no_answer(&error))?;
        let Some(path) = &self.out else { return Ok(output.write(receipt.as_bytes())?) };
        std::fs::write(path, receipt).map_err(|error| CliError::unwritable(path, error))?;
        Ok(output.done(&format!("wrote `{}`", path.display()))?)
    }
}

impl VerifyProof {
    fn run(self, output: Output) -> Result<(), CliError> {
        let text = String::from_utf8(read(&self.file)?)
            .map_err(|_| CliError::Unverified("malformed receipt: it is not UTF-8".to_owned()))?;
        let unverified = |error: &dyn std::error::Error| CliError::Unverified(error.to_string());
        let receipt = Receipt::parse(&text).map_err(|error| unverified(&error))?;
        let (entry, tree) = receipt.verify(&self.vkey).map_err(|error| unverified(&error))?;
        if let Some(path) = &self.data {
            let by_digest = ByDigest::parse(entry).map_err(|error| unverified(&error))?;
            let data = read(path)?;
            if !by_digest.is_some_and(|by_digest| by_digest.is_of(&data)) {
                let problem = format!("the entry is not the digest of `{}`", path.display());
                return Err(CliError::Unverified(problem));
            }
        }
        let entry = String::from_utf8_lossy(entry);
        let raw: Option<&RawValue> = serde_json::from_str(&entry).ok();
        let told = json!({
            "origin": self.vkey.name(),
            "index": receipt.index,
            "size": tree.size,
            "root": tree.root,
            "entry": raw,
        });
        Ok(output.show(&told, |told| {
            let [origin, index, size, root] =
                ["origin", "index", "size", "root"].map(|field| cell(told, field));
            let about =
                fields([("ledger", origin), ("index", index), ("of", size), ("root", root)]);
            format!("the entry is in the ledger\n{about}{entry}\n")
        })?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| CliError::unreadable(path, error))
}

fn human_list(list: &Value) -> String {
    let row = |ledger| ["name", "size", "integrated", "state"].map(|field| cell(ledger, field));
    let rows: Vec<_> = items(list, "ledgers").iter().map(row).collect();
    table(["NAME", "SIZE", "INTEGRATED", "STATE"], &rows)
}

fn human(ledger: &Value) -> String {
    let names =
        ["name", "size", "integrated", "root", "state", "error", "origin", "vkey", "created_at"];
    fields(names.map(|name| (name, cell(ledger, name))))
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::Parser;

    #[test]
    fn a_receipt_is_of_a_record_or_of_an_id() {
        let place = ["--topic", "t", "--partition", "0", "--offset", "1"];
        let cases: [(&[&str], bool); 6] = [
            (&place, true),
            (&["--id", "i"], true),
            (&[], false),
            (&place[..4], false),
            (&place[2..], false),
            (&["--topic", "t", "--partition", "0", "--offset", "1", "--id", "i"], false),
        ];
        for (args, is_fine) in cases {
            let args = ["stream", "ledger", "prove", "l"].iter().chain(args);
            assert_eq!(Cli::try_parse_from(args).is_ok(), is_fine);
        }
    }
}
