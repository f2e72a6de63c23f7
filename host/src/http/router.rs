//! Which call answers which route, and what wraps them all.

use std::sync::Arc;

use axum::Router;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Method};
use axum::routing::{delete, get, patch, post, put};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::observe::{REQUEST_ID, observe};
use super::records::{END_OFFSET, NEXT_OFFSET};
use super::{
    App, bindings, connectors, consume, endpoints, events, groups, jobs, keys, ledgers, lookups,
    members, meta, plugins, projects, queues, records, routes, schemas, subscribe, topics,
    transactions, trials, webhooks,
};

/// A route of the API. Those under `/projects/{project}` are also there without that prefix: then
/// the key's project is meant. All but the server's own are also under `/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// In lower case, as OpenAPI has it.
    pub method: &'static str,
    /// With the project's prefix.
    pub path: &'static str,
    /// The operation's id in the OpenAPI document.
    pub operation: &'static str,
}

/// Declares routes once: for the router and for whoever wants to list them.
macro_rules! routes {
    ($(#[$doc:meta])* $table:ident, $router:ident, $prefix:literal:
     $($method:ident $path:literal => $handler:path, $operation:literal;)*) => {
        $(#[$doc])*
        const $table: &[Route] = &[$(Route {
            method: stringify!($method),
            path: concat!($prefix, $path),
            operation: $operation,
        }),*];

        fn $router(prefix: &str) -> Router<Arc<App>> {
            Router::new()$(.route(&format!("{prefix}{}", $path), $method($handler)))*
        }
    };
}

routes! {
    /// What belongs to a project.
    IN_PROJECT, in_project, "/projects/{project}":
    get "/topics" => topics::list, "listTopics";
    post "/topics" => topics::create, "createTopic";
    get "/topics/{topic}" => topics::get, "getTopic";
    patch "/topics/{topic}" => topics::patch, "changeTopic";
    delete "/topics/{topic}" => topics::delete, "deleteTopic";
    get "/topics/{topic}/stats" => topics::stats, "getTopicStats";
    get "/topics/{topic}/partitions" => topics::partitions, "listPartitions";
    get "/topics/{topic}/partitions/{partition}/records" => records::read, "readRecords";
    delete "/topics/{topic}/partitions/{partition}/records" => records::trim, "trimRecords";
    post "/topics/{topic}/produce" => events::produce, "produceEvent";
    post "/topics/{topic}/events" => events::publish, "publishEvents";
    get "/topics/{topic}/events/{id}" => lookups::event, "getEvent";
    get "/topics/{topic}/keys/{key}" => lookups::by_key, "listByKey";
    get "/topics/{topic}/consume" => consume::consume, "consumeRecords";
    get "/topics/{topic}/offsets" => consume::offsets, "listOffsets";
    post "/topics/{topic}/offsets" => consume::commit, "commitOffset";
    get "/topics/{topic}/schema" => schemas::get, "getSchema";
    put "/topics/{topic}/schema" => schemas::put, "putSchema";
    delete "/topics/{topic}/schema" => schemas::delete, "deleteSchema";
    get "/topics/{topic}/schema/versions" => schemas::versions, "listSchemaVersions";
    get "/subscribe" => subscribe::subscribe, "subscribe";
    get "/records" => subscribe::poll, "readMatching";
    post "/transactions" => transactions::run, "runTransaction";
    get "/groups" => groups::list, "listGroups";
    get "/groups/{group}" => groups::get, "getGroup";
    put "/groups/{group}" => groups::put, "putGroup";
    delete "/groups/{group}" => groups::delete, "deleteGroup";
    post "/groups/{group}/reset" => groups::reset, "resetGroup";
    post "/groups/{group}/members" => members::join, "joinGroup";
    delete "/groups/{group}/members/{member}" => members::leave, "leaveGroup";
    post "/groups/{group}/members/{member}/heartbeat" => members::heartbeat, "sendHeartbeat";
    get "/groups/{group}/members/{member}/records" => members::records, "readMemberRecords";
    get "/groups/{group}/members/{member}/subscribe" => subscribe::as_member, "subscribeAsMember";
    post "/groups/{group}/members/{member}/offsets" => members::commit, "commitMemberOffsets";
    post "/groups/{group}/members/{member}/nack" => members::nack, "nackRecord";
    post "/events" => events::publish_by_type, "publishByType";
    get "/queues" => queues::list, "listQueues";
    get "/queues/{queue}" => queues::get, "getQueue";
    put "/queues/{queue}" => queues::put, "putQueue";
    delete "/queues/{queue}" => queues::delete, "deleteQueue";
    post "/queues/{queue}/redrive" => queues::redrive, "redriveJobs";
    post "/queues/{queue}/discard" => queues::discard, "discardJobs";
    get "/queues/{queue}/jobs" => jobs::list, "listJobs";
    post "/queues/{queue}/jobs" => jobs::enqueue, "enqueueJobs";
    post "/queues/{queue}/claim" => jobs::claim, "claimJobs";
    post "/queues/{queue}/complete" => jobs::complete_many, "completeJobs";
    get "/queues/{queue}/jobs/{id}" => jobs::get, "getJob";
    post "/queues/{queue}/jobs/{id}/heartbeat" => jobs::heartbeat, "extendLease";
    post "/queues/{queue}/jobs/{id}/complete" => jobs::complete, "completeJob";
    post "/queues/{queue}/jobs/{id}/fail" => jobs::fail, "failJob";
    post "/queues/{queue}/jobs/{id}/snooze" => jobs::snooze, "snoozeJob";
    get "/plugins" => plugins::list, "listPlugins";
    get "/plugins/{plugin}" => plugins::get, "getPlugin";
    put "/plugins/{plugin}" => plugins::upload, "uploadPlugin";
    delete "/plugins/{plugin}" => plugins::delete, "deletePlugin";
    get "/plugins/{plugin}/versions" => plugins::versions, "listPluginVersions";
    get "/plugins/{plugin}/stats" => plugins::stats, "getPluginStats";
    get "/plugins/{plugin}/logs" => plugins::logs, "getPluginLogs";
    post "/plugins/{plugin}/try" => trials::run, "tryPlugin";
    get "/bindings" => bindings::list, "listBindings";
    get "/bindings/{role}/{pattern}" => bindings::get, "getBindings";
    put "/bindings/{role}/{pattern}" => bindings::put, "putBindings";
    delete "/bindings/{role}/{pattern}" => bindings::delete, "deleteBindings";
    post "/bindings/{role}/{pattern}/rollback" => bindings::rollback, "rollBackBindings";
    get "/routes" => routes::list, "listRoutes";
    get "/routes/{route}" => routes::get, "getRoute";
    put "/routes/{route}" => routes::put, "putRoute";
    delete "/routes/{route}" => routes::delete, "deleteRoute";
    get "/ledgers" => ledgers::list, "listLedgers";
    get "/ledgers/{ledger}" => ledgers::get, "getLedger";
    get "/ledgers/{ledger}/checkpoint" => ledgers::checkpoint, "getCheckpoint";
    get "/ledgers/{ledger}/tile/{*path}" => ledgers::tile, "getTile";
    get "/ledgers/{ledger}/data/{path}" => ledgers::data, "getLedgerData";
    get "/ledgers/{ledger}/proof" => ledgers::proof, "getReceipt";
    get "/ledgers/{ledger}/consistency" => ledgers::consistency, "getConsistency";
    get "/connectors" => connectors::list, "listConnectors";
    get "/connectors/{connector}" => connectors::get, "getConnector";
    put "/connectors/{connector}" => connectors::put, "putConnector";
    delete "/connectors/{connector}" => connectors::delete, "deleteConnector";
    post "/connectors/{connector}/pause" => connectors::pause, "pauseConnector";
    post "/connectors/{connector}/resume" => connectors::resume, "resumeConnector";
    post "/connectors/{connector}/replay" => connectors::replay, "replayConnector";
    get "/connectors/{connector}/dead-letters" => connectors::dead_letters, "listConnectorDeadLetters";
    post "/connectors/{connector}/redrive" => connectors::redrive, "redriveConnector";
    post "/webhooks" => webhooks::send, "sendWebhook";
    get "/webhooks/stats" => webhooks::stats, "getWebhookStats";
    get "/webhooks/endpoints" => endpoints::list, "listEndpoints";
    post "/webhooks/endpoints" => endpoints::create, "createEndpoint";
    get "/webhooks/endpoints/{endpoint}" => endpoints::get, "getEndpoint";
    patch "/webhooks/endpoints/{endpoint}" => endpoints::patch, "changeEndpoint";
    delete "/webhooks/endpoints/{endpoint}" => endpoints::delete, "deleteEndpoint";
    post "/webhooks/endpoints/{endpoint}/rotate-secret" => endpoints::rotate, "rotateSecret";
    get "/webhooks/endpoints/{endpoint}/deliveries" => webhooks::deliveries, "listDeliveries";
    get "/webhooks/endpoints/{endpoint}/deliveries/{id}" => webhooks::delivery, "getDelivery";
    post "/webhooks/endpoints/{endpoint}/deliveries/{id}/redeliver" => webhooks::redeliver, "redeliver";
    post "/webhooks/endpoints/{endpoint}/redeliver" => webhooks::redeliver_range, "redeliverRange";
    post "/webhooks/endpoints/{endpoint}/cancel" => webhooks::cancel, "cancelDeliveries";
    get "/producers/{id}" => events::producer, "getProducer";
    get "/keys" => keys::list, "listKeys";
    post "/keys" => keys::create, "createKey";
    delete "/keys/{id}" => keys::revoke, "revokeKey";
}

routes! {
    /// What is about projects.
    OF_PROJECTS, of_projects, "":
    get "/projects" => projects::list, "listProjects";
    put "/projects/{project}" => projects::put, "putProject";
}

routes! {
    /// What is about the server.
    OF_SERVER, of_server, "":
    get "/healthz" => meta::healthz, "getHealth";
    get "/readyz" => meta::readyz, "getReadiness";
    get "/metrics" => meta::metrics, "getMetrics";
    get "/openapi.json" => meta::openapi, "getOpenApi";
}

/// Every route.
pub const ROUTES: &[&[Route]] = &[IN_PROJECT, OF_PROJECTS, OF_SERVER];

/// The service that answers requests. Pages of `cors_origins` may read its answers; `*` is any page.
pub fn router(app: Arc<App>, cors_origins: &[HeaderValue]) -> Router {
    let router = of_server("")
        .merge(api("/v1"))
        .merge(api(""))
        .fallback(meta::no_route)
        .method_not_allowed_fallback(meta::method_not_allowed);
    let router = if cors_origins.is_empty() { router } else { router.layer(cors(cors_origins)) };
    router.layer(axum::middleware::from_fn_with_state(app.clone(), observe)).with_state(app)
}

/// The API under a prefix. Its routes are not nested in one another: a nested route costs each of its
/// requests a rewritten path.
fn api(prefix: &str) -> Router<Arc<App>> {
    of_projects(prefix)
        .merge(in_project(&format!("{prefix}/projects/{{project}}")))
        .merge(in_project(prefix))
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID, RETRY_AFTER, NEXT_OFFSET, END_OFFSET])
}
