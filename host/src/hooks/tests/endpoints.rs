//! Endpoints made, changed and deleted.

use super::*;
use DeliveryStatus::Success;

fn new(name: &str, url: &str) -> NewEndpoint {
    NewEndpoint {
        name: EndpointName::parse(name).unwrap(),
        url: url.to_owned(),
        events: Vec::new(),
        description: None,
        metadata: std::collections::BTreeMap::new(),
        secret: None,
        settings: EndpointSettings::default(),
        is_disabled: false,
    }
}

#[tokio::test]
async fn a_forbidden_address_is_refused_when_it_is_told() {
    let bed = Bed::new(16).await;
    bed.endpoint("e", "http://127.0.0.1:9/").await;
    let name = EndpointName::parse("e").unwrap();
    for url in ["http://10.0.0.1/", "http://[::1]/", "ftp://127.0.0.1/", "http://a:b@127.0.0.1/"] {
        let refused = bed.hooks.create(&bed.project, new("f", url)).await;
        assert!(matches!(refused, Err(HooksError::Url(_))), "{url}: {refused:?}");
        let patch = EndpointPatch { url: Some(url.to_owned()), ..EndpointPatch::default() };
        let refused = bed.hooks.patch(&bed.project, &name, patch).await;
        assert!(matches!(refused, Err(HooksError::Url(_))), "{url}: {refused:?}");
    }
    *lock(&bed.names.0) = "169.254.169.254".parse().unwrap();
    let refused = bed.hooks.create(&bed.project, new("f", "http://metadata.test/")).await;
    assert!(matches!(refused, Err(HooksError::Url(_))), "{refused:?}");
    assert_eq!(bed.get("e").await.url, "http://127.0.0.1:9/");
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let bed = Bed::new(16).await;
    bed.endpoint("e", "http://127.0.0.1:9/").await;
    let again = bed.hooks.create(&bed.project, new("e", "http://127.0.0.1:9/")).await;
    assert!(matches!(again, Err(HooksError::Exists { .. })), "{again:?}");
}

#[tokio::test]
async fn the_secret_lies_sealed_in_the_store() {
    let bed = Bed::new(16).await;
    let Edited { secret, .. } = bed.endpoint("e", "http://127.0.0.1:9/").await;
    let rows = bed.store.scan(&bed.project, b"", None, 1_000).await.unwrap();
    let raw = secret.bytes().expose();
    let text = secret.text();
    let holds = |value: &[u8], part: &[u8]| value.windows(part.len()).any(|found| found == part);
    for row in rows {
        let value = &row.versioned.value;
        assert!(!holds(value, raw) && !holds(value, &text.as_bytes()[6..]), "{row:?}");
    }
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_new_one_for_a_while() {
    let bed = Bed::start().await;
    let receiver = Receiver::start().await;
    let first = bed.endpoint("e", &receiver.url()).await.secret;
    let name = EndpointName::parse("e").unwrap();
    let hour = Duration::from_secs(3_600);
    let second = bed.hooks.rotate(&bed.project, &name, None, hour).await.unwrap().secret;
    bed.send("a").await;
    let got = receiver.until(1).await.remove(0);
    assert!(got.is_signed_by(&first) && got.is_signed_by(&second), "{got:?}");
    bed.clock.pass(hour);
    bed.send("a").await;
    let got = receiver.until(2).await.remove(1);
    assert!(!got.is_signed_by(&first) && got.is_signed_by(&second), "{got:?}");
    let third = bed.hooks.rotate(&bed.project, &name, None, Duration::ZERO).await.unwrap().secret;
    bed.until("e", &[Success, Success]).await;
    bed.send("a").await;
    let got = receiver.until(3).await.remove(2);
    assert!(!got.is_signed_by(&second) && got.is_signed_by(&third), "{got:?}");
}

#[tokio::test]
async fn a_deleted_endpoint_leaves_nothing_behind() {
    let bed = Bed::start().await;
    let receiver = Receiver::answering(&["500"]).await;
    bed.endpoint("e", &receiver.url()).await;
    bed.send("a").await;
    bed.until("e", &[Success]).await;
    bed.hooks.delete(&bed.project, &EndpointName::parse("e").unwrap()).await.unwrap();
    for prefix in ["hook-", "job", "queue/"] {
        let left = bed.store.scan(&bed.project, prefix.as_bytes(), None, 10).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
    // Another of that name is another.
    bed.endpoint("e", &receiver.url()).await;
    assert_eq!(bed.stats("e").await, EndpointStats::default());
}
