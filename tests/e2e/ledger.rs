//! Ledgers over HTTP and on disk: read and verified by implementations that are not ours (the crates
//! `signed_note` and `tlog_tiles`, ports of Go's `sumdb/note` and `sumdb/tlog`), and by the command
//! line.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use signed_note::{Note, StandardVerifier, VerifierList};
use stream_host::drain::Drain;
use stream_host::ledger::{
    LedgerEntry, Ledgers, LedgersConfig, LedgersParts, Objects, Source, Wanted, entry,
};
use stream_host::name::{LedgerName, TopicName};
use stream_host::project::Projects;
use stream_host::secret::Sealer;
use stream_host::slot::Slot;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    Clock, Partition, ProjectName, Record, Store, SystemClock, Timestamp, TopicId, Transaction,
};
use stream_tests::{Client, Server};
use tlog_tiles::{Hash, HashReader, Tile, TileHashReader, TileReader};

use super::openapi::Checked;
use super::{start, stream};

const LEDGERS: &str = "/projects/{project}/ledgers";
const LEDGER: &str = "/projects/{project}/ledgers/{ledger}";

/// So many that there are two levels of full tiles' hashes, and partial tiles at each.
const SIZE: u64 = 66_000;

/// Entries of a topic, one of which is too long for a tile.
fn entries(range: std::ops::Range<u64>) -> Vec<LedgerEntry> {
    let topic = TopicName::parse("order.placed").unwrap();
    let slot = Slot::new(TopicId(1), Partition(0));
    let made = |offset: u64| {
        let id = format!("e{offset}");
        let length = if offset == 777 { 70_000 } else { 20 };
        let value = format!("\"{}\"", "v".repeat(length));
        let record = Record {
            id: Some(&id),
            value: value.as_bytes(),
            value_is_json: true,
            ..Record::default()
        };
        let time = Timestamp(1_767_323_045_678);
        let entry = entry::of(&record, &topic, slot.partition, offset, time);
        LedgerEntry { source: Source { topic: topic.clone(), slot, offset }, id: Some(id), entry }
    };
    range.map(made).collect()
}

/// Fills the ledger `l` of the project `p` in a data folder that no server has open.
async fn fill(data: &Path, sizes: &[u64]) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(data) };
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(config, clock.clone()).unwrap());
    let projects = Arc::new(Projects::new(store.clone(), clock.clone()));
    let (project, name) = (ProjectName::parse("p").unwrap(), LedgerName::parse("l").unwrap());
    projects.ensure(&project).await.unwrap();
    let config = LedgersConfig {
        objects: Objects::open_folder(&data.join("ledgers")).unwrap(),
        origin: Some("ledgers.example.com".to_owned()),
    };
    let sealer = Arc::new(Sealer::open(data).unwrap());
    let parts = LedgersParts { store: store.clone(), clock, projects, sealer, config };
    let ledgers = Arc::new(Ledgers::new(parts));
    let drain = Drain::default();
    let running = tokio::spawn(ledgers.clone().run(drain.clone()));
    let mut next = 0;
    for size in sizes {
        while next < *size {
            let end = (*size).min(next + 4_000);
            let mut transaction = Transaction::new(project.clone());
            let added = entries(next..end);
            let appending = ledgers.append(&mut transaction, &project, &name, added).await.unwrap();
            store.commit(transaction).await.unwrap();
            appending.done(true);
            next = end;
        }
        // A checkpoint of this size, though it may take more than one wait.
        let wanted = Wanted::Id(format!("e{}", size - 1));
        while ledgers.receipt(&project, &name, &wanted).await.is_err() {}
    }
    drain.begin();
    running.await.unwrap();
    store.close().await;
}

/// What a GET answers, as bytes.
async fn bytes(client: &Client, path: &str) -> Vec<u8> {
    let response = client.request("GET", path).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200, "{path}");
    response.bytes().await.unwrap().to_vec()
}

/// The path of a tile as C2SP has it: without the height, which is always 8.
fn path_of(tile: &Tile) -> String {
    tile.path().replacen("tile/8/", "tile/", 1)
}

/// Tiles as they were served.
struct Served(BTreeMap<String, Vec<u8>>);

impl TileReader for Served {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        Ok(tiles.iter().map(|tile| self.0[&path_of(tile)].clone()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// All hashes of a tree, as `tlog_tiles` computes and numbers them.
struct Computed(Vec<Hash>);

impl HashReader for Computed {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let hash = |index: &u64| self.0[usize::try_from(*index).unwrap()];
        Ok(indexes.iter().map(hash).collect())
    }
}

/// The entries of all bundles, taken apart by the words of the specification.
async fn read_entries(client: &Client, ledger: &str, size: u64) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for tile in Tile::new_tiles(8, 0, size).iter().filter(|tile| tile.level() == 0) {
        let path = path_of(tile).replacen("tile/0/", "tile/entries/", 1);
        let bundle = bytes(client, &format!("{ledger}/{path}")).await;
        let mut rest = bundle.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk() {
            let (entry, tail) = tail.split_at(u16::from_be_bytes(*length).into());
            entries.push(entry.to_vec());
            rest = tail;
        }
        assert!(rest.is_empty());
    }
    entries
}

#[tokio::test]
async fn other_implementations_read_and_verify_a_ledger() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), &[1, 300, SIZE]).await;
    let server = start(data.path());
    let client = server.client();
    let ledger = "/projects/p/ledgers/l";

    // The checkpoint, by `signed_note` and `tlog_tiles`.
    let status = client.call("GET", ledger).await.ok();
    assert_eq!(status["origin"], "ledgers.example.com/projects/p/ledgers/l");
    let verifier = StandardVerifier::new(status["vkey"].as_str().unwrap()).unwrap();
    let verifiers = VerifierList::new(vec![Box::new(verifier)]);
    let open = |note: &[u8]| {
        let note = Note::from_bytes(note).unwrap();
        let (known, unknown) = note.verify(&verifiers).unwrap();
        assert_eq!((known.len(), unknown.len()), (1, 0));
        tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap()
    };
    let checkpoint = open(&bytes(&client, &format!("{ledger}/checkpoint")).await);
    assert_eq!(checkpoint.origin(), status["origin"]);
    assert_eq!((checkpoint.size(), checkpoint.extension()), (SIZE, ""));
    assert_eq!(checkpoint.hash().to_string(), status["root"]);

    // Every tile, byte for byte as `tlog_tiles` makes it of the entries.
    let entries = read_entries(&client, ledger, SIZE).await;
    assert_eq!(entries.len() as u64, SIZE);
    let mut computed = Computed(Vec::new());
    for (index, entry) in entries.iter().enumerate() {
        let hashes = tlog_tiles::stored_hashes(index as u64, entry, &computed).unwrap();
        computed.0.extend(hashes);
    }
    assert_eq!(tlog_tiles::tree_hash(SIZE, &computed).unwrap(), *checkpoint.hash());
    let mut served = Served(BTreeMap::new());
    for tile in Tile::new_tiles(8, 0, SIZE) {
        let path = path_of(&tile);
        let bytes = bytes(&client, &format!("{ledger}/{path}")).await;
        assert!(bytes == tile.read_data(&computed).unwrap(), "{path}");
        served.0.insert(path, bytes);
    }
    let levels = ["tile/0/257.p/208", "tile/1/001.p/1", "tile/2/000.p/1", "tile/1/000"];
    assert!(levels.iter().all(|path| served.0.contains_key(*path)), "{:?}", served.0.keys());

    // Receipts and consistency proofs are the ones that it draws from the tiles.
    let tiles = TileHashReader::new(SIZE, *checkpoint.hash(), &served);
    for index in [0, 255, 256, 777, 65_535, 65_536, SIZE - 1] {
        let expected = tlog_tiles::prove_record(SIZE, index, &tiles).unwrap();
        let place = format!("topic=order.placed&partition=0&offset={index}");
        for query in [place, format!("id=e{index}")] {
            let text = bytes(&client, &format!("{ledger}/proof?{query}")).await;
            let text = String::from_utf8(text).unwrap();
            let (proof, note) = text.split_once("\n\n").unwrap();
            let lines: Vec<&str> = proof.lines().collect();
            assert_eq!(lines[0], "c2sp.org/tlog-proof@v1");
            assert_eq!(lines[2], format!("index {index}"));
            let proof: Vec<Hash> =
                lines[3..].iter().map(|line| Hash::parse_hash(line).unwrap()).collect();
            assert_eq!(proof, expected, "{query}");
            assert_eq!(open(note.as_bytes()).hash(), checkpoint.hash());
            let leaf = tlog_tiles::record_hash(&entries[usize::try_from(index).unwrap()]);
            tlog_tiles::check_record(&proof, SIZE, *checkpoint.hash(), index, leaf).unwrap();
        }
    }
    for (from, to) in [(1, 2), (256, 300), (300, SIZE), (65_536, SIZE), (65_537, 65_999)] {
        let path = format!("{ledger}/consistency?from={from}&to={to}");
        let body = client.call("GET", &path).await.ok();
        let hash = |value: &serde_json::Value| Hash::parse_hash(value.as_str().unwrap()).unwrap();
        let (old, new) = (hash(&body["from_root"]), hash(&body["to_root"]));
        assert_eq!(new, tlog_tiles::tree_hash(to, &computed).unwrap());
        let proof: Vec<Hash> = body["proof"].as_array().unwrap().iter().map(hash).collect();
        assert_eq!(proof, tlog_tiles::prove_tree(to, from, &tiles).unwrap());
        tlog_tiles::check_tree(&proof, to, new, from, old).unwrap();
    }
}

#[tokio::test]
async fn ledgers_are_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), &[300, 1_000]).await;
    let server = start(data.path());
    let checked = Checked::new(server.client()).await;
    let at = |path: &str| (format!("{LEDGER}{path}"), format!("/projects/p/ledgers/l{path}"));
    let list = checked.call(("GET", LEDGERS, "/projects/p/ledgers"), None, 200).await;
    assert_eq!(list.body["ledgers"][0]["integrated"], 1_000);
    let status = checked.call(("GET", LEDGER, "/projects/p/ledgers/l"), None, 200).await;
    assert_eq!((&status.body["size"], &status.body["state"]), (&1_000.into(), &"ok".into()));
    let none = ("GET", LEDGER, "/projects/p/ledgers/none");
    checked.refuse(none, None, 404, "ledger-not-found").await;
    checked.refuse(("GET", LEDGER, "/projects/p/ledgers/a%20b"), None, 400, "invalid-ledger").await;

    let header = |answer: &stream_tests::Answer, name: &str| {
        answer.headers[name].to_str().unwrap().to_owned()
    };
    let (template, path) = at("/checkpoint");
    let answer = checked.call(("GET", &template, &path), None, 200).await;
    assert_eq!(header(&answer, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(header(&answer, "cache-control"), "no-cache");

    let tile = format!("{LEDGER}/tile/{{*path}}");
    for (path, status) in [
        ("0/000", 200),
        ("0/003.p/232", 200),
        ("entries/002", 200),
        ("1/000.p/3", 200),
        ("0/004", 404),
        ("entries/003.p/231", 404),
        ("0/0", 400),
        ("0/000.p/256", 400),
        ("x/000", 400),
        ("0/..%2f..%2fcheckpoint", 400),
    ] {
        let path = format!("/projects/p/ledgers/l/tile/{path}");
        let answer = checked.call(("GET", &tile, &path), None, status).await;
        if status == 200 {
            assert_eq!(header(&answer, "content-type"), "application/octet-stream");
            assert!(header(&answer, "cache-control").contains("immutable"));
        }
    }

    proofs(&checked).await;

    let data_at = format!("{LEDGER}/data/{{path}}");
    let none = format!("/projects/p/ledgers/l/data/{}", "0".repeat(64));
    checked.refuse(("GET", &data_at, &none), None, 404, "ledger-file-not-found").await;
    let folder = std::fs::read_dir(data.path().join("ledgers/p/l/data")).unwrap();
    let digest = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).next();
    let path = format!("/projects/p/ledgers/l/data/{}", digest.unwrap());
    let event = checked.call(("GET", &data_at, &path), None, 200).await;
    assert_eq!((&event.body["offset"], &event.body["id"]), (&777.into(), &"e777".into()));
}

/// Receipts and consistency proofs of a ledger of 1,000 entries.
async fn proofs(checked: &Checked) {
    let at = |path: &str| (format!("{LEDGER}{path}"), format!("/projects/p/ledgers/l{path}"));
    let (template, path) = at("/proof?id=e777");
    let template = template.split('?').next().unwrap();
    let receipt = checked.call(("GET", template, &path), None, 200).await;
    let receipt = receipt.body.as_str().unwrap().to_owned();
    assert!(receipt.starts_with("c2sp.org/tlog-proof@v1\nextra "), "{receipt}");
    for (query, status, code) in [
        ("", 400, "invalid-query"),
        ("?topic=a&id=b", 400, "invalid-query"),
        ("?topic=order.placed&partition=0", 400, "invalid-offset"),
        ("?topic=a..b&partition=0&offset=0", 400, "invalid-topic"),
        ("?topic=order.placed&partition=0&offset=1000", 404, "entry-not-found"),
        ("?id=none", 404, "entry-not-found"),
    ] {
        let path = format!("/projects/p/ledgers/l/proof{query}");
        checked.refuse(("GET", template, &path), None, status, code).await;
    }

    let (template, path) = at("/consistency");
    checked.call(("GET", &template, &format!("{path}?from=300")), None, 200).await;
    for (query, code) in [
        ("", "invalid-from"),
        ("?from=2&to=1", "invalid-to"),
        ("?from=2&to=1001", "invalid-to"),
        ("?from=1001", "invalid-to"),
    ] {
        checked.refuse(("GET", &template, &format!("{path}{query}")), None, 400, code).await;
    }
}

#[tokio::test]
async fn the_command_line_verifies_whole_ledgers_and_receipts() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), &[300, 1_000]).await;
    let server = start(data.path());
    let run = |arguments: &[&str]| {
        let project = ["--project", "p", "--json"];
        let output = stream(&server, &[&["ledger"][..], arguments, &project].concat());
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code().unwrap(), text.concat())
    };
    let (code, text) = run(&["show", "l"]);
    assert_eq!(code, 0, "{text}");
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vkey = status["vkey"].as_str().unwrap();

    let folder = data.path().join("ledgers/p/l");
    let folder = folder.to_str().unwrap();
    let url = format!("{}/projects/p/ledgers/l", server.url);
    for place in [folder, "l", &url] {
        let (code, text) = run(&["verify", place, "--vkey", vkey]);
        assert_eq!(code, 0, "{text}");
        let verified: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&verified["size"], &verified["data"]), (&1_000.into(), &1.into()));
    }
    let (code, text) = run(&["verify", "l"]);
    assert!(code == 0 && text.contains("the server's word"), "{text}");
    assert_eq!(run(&["verify", folder]).0, 2);
    assert_eq!(run(&["verify", "none"]).0, 1);
    let stranger = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    assert_eq!(run(&["verify", folder, "--vkey", stranger]).0, 5);

    let proof = data.path().join("e777.tlog-proof");
    let proof = proof.to_str().unwrap();
    assert_eq!(run(&["prove", "l", "--id", "e777", "--out", proof]).0, 0);
    let (code, text) = run(&["verify-proof", proof, "--vkey", vkey]);
    assert_eq!(code, 0, "{text}");
    let proven: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&proven["index"], &proven["entry"]["offset"]), (&777.into(), &777.into()));
    let long = format!("{folder}/data/{}", proven["entry"]["data_sha256"].as_str().unwrap());
    assert_eq!(run(&["verify-proof", proof, "--vkey", vkey, "--data", &long]).0, 0);
    assert_eq!(run(&["verify-proof", proof, "--vkey", vkey, "--data", proof]).0, 5);
    assert_eq!(run(&["verify-proof", proof, "--vkey", stranger]).0, 5);
    let place = ["--topic", "order.placed", "--partition", "0", "--offset", "777"];
    let (_, by_place) = run(&[&["prove", "l"][..], &place].concat());
    assert_eq!(by_place, std::fs::read_to_string(proof).unwrap());

    let tile = format!("{folder}/tile/0/001");
    let mut wrong = std::fs::read(&tile).unwrap();
    wrong[100] ^= 1;
    std::fs::write(&tile, wrong).unwrap();
    let (code, text) = run(&["verify", folder, "--vkey", vkey]);
    assert!(code == 5 && text.contains("tile/0/001"), "{text}");
    let (code, _) = run(&["list"]);
    assert_eq!(code, 0);
    let _: Server = server;
}
