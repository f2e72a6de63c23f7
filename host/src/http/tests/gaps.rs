//! Gaps in the middle of a log, as a start with `--accept-loss` leaves them: who comes to one is
//! told, and goes on behind it when told to.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use stream_storage::{
    Bounds, CommitError, Health, Metrics, Partition, Position, ProducerState, ProjectName,
    ReadError, ReadRequest, ReadStart, Receipt, Records, StateEntry, StoreError, TopicId,
    Transaction, Trim, TrimError, Versioned, Watch,
};

use super::connectors::payloads;
use super::groups::text;
use super::*;
use crate::consume::{Amount, SlotRecords, TrimmedStart};
use crate::name::TopicName;
use crate::node::default_project;
use crate::slot::Slot;

/// A store that has lost records of one partition.
struct Gapped {
    inner: Arc<dyn Store>,
    slot: Slot,
    lost: Range<u64>,
}

#[async_trait]
impl Store for Gapped {
    async fn commit(&self, transaction: Transaction) -> Result<Receipt, CommitError> {
        self.inner.commit(transaction).await
    }

    async fn read(&self, request: ReadRequest) -> Result<Records, ReadError> {
        let mut records_max = request.records_max;
        if let ReadStart::Offset(start) = request.start
            && self.slot == Slot::new(request.topic, request.partition)
            && records_max > 0
        {
            if self.lost.contains(&start) {
                return Err(ReadError::Trimmed { earliest: self.lost.end });
            }
            if start < self.lost.start {
                let before = usize::try_from(self.lost.start - start).unwrap();
                records_max = records_max.min(before);
            }
        }
        self.inner.read(ReadRequest { records_max, ..request }).await
    }

    async fn bounds(&self, topic: TopicId, partition: Partition) -> Result<Bounds, StoreError> {
        self.inner.bounds(topic, partition).await
    }

    fn watch(&self, watch: Watch) -> tokio::sync::watch::Receiver<u64> {
        self.inner.watch(watch)
    }

    async fn trim(
        &self,
        topic: TopicId,
        partition: Partition,
        trim: Trim,
    ) -> Result<Bounds, TrimError> {
        self.inner.trim(topic, partition, trim).await
    }

    async fn get(
        &self,
        project: &ProjectName,
        key: &[u8],
    ) -> Result<Option<Versioned>, StoreError> {
        self.inner.get(project, key).await
    }

    async fn scan(
        &self,
        project: &ProjectName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreError> {
        self.inner.scan(project, prefix, after, limit).await
    }

    async fn producer(
        &self,
        project: &ProjectName,
        id: &str,
    ) -> Result<Option<ProducerState>, StoreError> {
        self.inner.producer(project, id).await
    }

    async fn receipt(
        &self,
        project: &ProjectName,
        id: &str,
        epoch: u64,
        sequence: u64,
    ) -> Result<Option<Receipt>, StoreError> {
        self.inner.receipt(project, id, epoch, sequence).await
    }

    async fn lookup(
        &self,
        topic: TopicId,
        kind: u8,
        key: &[u8],
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        self.inner.lookup(topic, kind, key, after, limit).await
    }

    async fn lookup_back(
        &self,
        topic: TopicId,
        kind: u8,
        key: &[u8],
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        self.inner.lookup_back(topic, kind, key, before, limit).await
    }

    fn limits(&self) -> stream_storage::Limits {
        self.inner.limits()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

impl Server {
    /// A partition of `t`.
    async fn slot(&self, partition: u32) -> Slot {
        let name = TopicName::parse("t").unwrap();
        let topic = self.app.node.catalog.get(&default_project(), &name).await.unwrap();
        Slot::new(topic.id, Partition(partition))
    }

    /// The same store, which has lost these offsets of partition 0 of `t`, under another server.
    pub(super) async fn with_gap(self, lost: Range<u64>) -> Self {
        let slot = self.slot(0).await;
        let store = Gapped { inner: self.app.node.store.clone(), slot, lost };
        let clock = self.app.node.clock.clone();
        let app = Self::app(Arc::new(store), clock, Limits::default(), &self.folder).await;
        Self { router: router(Arc::clone(&app), &[]), app, ..self }
    }
}

#[tokio::test]
async fn a_read_of_several_partitions_tells_what_is_lost_and_brings_the_rest() {
    let server = Server::start().await;
    server.topic(3).await;
    for partition in 0..3 {
        server.fill(partition, 6).await;
    }
    let server = server.with_gap(2..4).await;
    server.call("DELETE /topics/t/partitions/1/records?before=5", Value::Null).await;
    let slots = [server.slot(0).await, server.slot(1).await, server.slot(2).await];
    let amount = Amount { records_max: 100, bytes_max: 1 << 20, wait: Duration::ZERO };
    let read = async |starts: [u64; 3]| {
        let starts = BTreeMap::from_iter(slots.into_iter().zip(starts));
        let read = server.app.node.reader.read_slots(&starts, amount).await.unwrap();
        let SlotRecords { mut found, trimmed } = read;
        found.sort_by_key(|part| part.slot);
        let found: Vec<_> = found
            .iter()
            .map(|part| (part.slot.partition.0, part.segments[0].base_offset(), part.next_offset))
            .collect();
        (found, trimmed)
    };
    let gone =
        |place: usize, offset, earliest| TrimmedStart { slot: slots[place], offset, earliest };
    // What lies before the gap comes first, though there is room for more.
    assert_eq!(read([1, 5, 6]).await, (vec![(0, 1, 2), (1, 5, 6)], vec![]));
    assert_eq!(read([2, 6, 3]).await, (vec![(2, 3, 6)], vec![gone(0, 2, 4)]));
    assert_eq!(read([3, 4, 6]).await, (vec![], vec![gone(0, 3, 4), gone(1, 4, 5)]));
    assert_eq!(read([6, 0, 6]).await, (vec![], vec![gone(1, 0, 5)]));
    assert_eq!(read([4, 0, 0]).await, (vec![(0, 4, 6), (2, 0, 6)], vec![gone(1, 0, 5)]));
}

#[tokio::test]
async fn a_member_in_a_gap_is_told_and_goes_on_behind_it_after_a_reset() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 6).await;
    server.fill(1, 1).await;
    let server = server.with_gap(2..4).await;
    let member = server.join_t().await;
    let read = server.records(&member).await;
    assert_eq!((read["records"].as_array().unwrap().len(), &read["lost"]), (3, &json!([])));
    assert_eq!(server.commit(&member, &read["next"]).await.status, StatusCode::NO_CONTENT);

    let read = server.records(&member).await;
    let lost = json!([
        { "topic": "t", "partition": 0, "committed": 2, "earliest": 4, "records": 2 }
    ]);
    assert_eq!((&read["records"], &read["lost"]), (&json!([]), &lost));
    let told = server.get("/groups/g").await.json();
    let standing = &told["partitions"][0];
    assert_eq!((&standing["lost"], &standing["lag"]), (&json!(2), &json!(2)));
    assert_eq!(standing["why"]["code"], json!("lost"));
    let path = format!("/topics/t/consume?group=g&member={}", text(&member["member"]));
    let refused = server.get(&path).await;
    assert_eq!(refused.error(), (410, "offset-trimmed".to_owned()));
    assert_eq!(refused.json()["error"]["earliest"], json!(4));

    // The other partition goes on.
    server.fill(1, 1).await;
    let read = server.records(&member).await;
    assert_eq!((read["records"].as_array().unwrap().len(), &read["lost"]), (1, &lost));
    assert_eq!(server.commit(&member, &read["next"]).await.status, StatusCode::NO_CONTENT);
    let reset = json!({ "topic": "t", "partition": 0, "offset": 4, "force": true });
    assert_eq!(server.call("POST /groups/g/reset", reset).await.status, StatusCode::OK);
    let read = server.records(&member).await;
    assert_eq!((read["records"].as_array().unwrap().len(), &read["lost"]), (2, &json!([])));
}

#[tokio::test]
async fn a_group_without_members_is_told_of_a_gap_and_goes_on_behind_it() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 6).await;
    let server = server.with_gap(2..4).await;
    let path = "/topics/t/consume?group=g&wait_ms=60000";
    let commit = async |offset: u64| {
        let body = json!({ "group": "g", "partition": 0, "offset": offset });
        let done = server.call("POST /topics/t/offsets", body).await;
        assert_eq!(done.status, StatusCode::NO_CONTENT, "{}", done.text);
    };
    let read = server.get(path).await;
    assert_eq!(places(&read), [(0, 0, json!(0)), (0, 1, json!(1))]);
    commit(2).await;
    let refused = server.get(path).await;
    assert_eq!(refused.error(), (410, "offset-trimmed".to_owned()));
    assert_eq!(refused.json()["error"]["earliest"], json!(4));
    commit(4).await;
    assert_eq!(places(&server.get(path).await), [(0, 4, json!(4)), (0, 5, json!(5))]);
}

#[tokio::test]
async fn a_connector_in_a_gap_says_so_and_goes_on_behind_it_after_a_replay() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 6).await;
    let server = server.with_gap(2..4).await;
    let settings = json!({ "from": "earliest" });
    server.connect("c", json!({ "kind": "worker", "match": "t", "settings": settings })).await;
    assert_eq!(payloads(&server.jobs("c", 2).await), ["0", "1"]);
    let told = server.until("c", |told| told["lost"] != json!([])).await;
    let lost = json!([
        { "topic": "t", "partition": 0, "next_offset": 2, "earliest": 4, "records": 2 }
    ]);
    assert_eq!(told["lost"], lost);
    // The other partition goes on.
    server.fill(1, 1).await;
    assert_eq!(payloads(&server.jobs("c", 1).await), ["0"]);
    let replay = json!({ "topic": "t", "partition": 0, "offset": 4 });
    let told = server.call("POST /connectors/c/replay", replay).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.text);
    assert_eq!(payloads(&server.jobs("c", 2).await), ["4", "5"]);
    assert_eq!(server.get("/connectors/c").await.json()["lost"], json!([]));
}

#[tokio::test]
async fn a_connector_that_drains_does_not_wait_for_what_lies_behind_a_gap() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 6).await;
    let server = server.with_gap(2..4).await;
    let settings = json!({ "from": "earliest", "queue": "q" });
    server.connect("c", json!({ "kind": "worker", "match": "t", "settings": settings })).await;
    server.jobs("q", 2).await;
    server.until("c", |told| told["lost"] != json!([])).await;
    server.call("DELETE /connectors/c?mode=drain", Value::Null).await;
    server.until("c", |told| told["error"]["code"] == "connector-not-found").await;
}
