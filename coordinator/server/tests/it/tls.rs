//! Certificates: who is trusted, who is not, and what happens when they are renewed.

use r2o_coordinator::{Handle, Options, ServerTlsFiles, Service};
use r2o_proto::v1::ListRequest;
use r2o_proto::v1::jobs_client::JobsClient;
use r2o_test_kit::Authority;
use r2o_transport::ClientTls;
use tonic::transport::{Channel, Endpoint};

use super::kit::*;

const VALID: i32 = 2100;
const EXPIRED: i32 = 2021;

/// A coordinator that shows a certificate of `ours` and asks for one of `ours`.
struct Door {
    place: Place,
    ours: Authority,
    handle: Handle,
}

impl Door {
    async fn new(ends: i32) -> Self {
        let place = Place::new();
        let ours = Authority::new(&place.path(""), "ours").unwrap();
        ours.sign(&place.path("server.pem"), &place.path("server.key"), ends).unwrap();
        let handle = Service::start(options(&place, &ours)).await.unwrap();
        Self { place, ours, handle }
    }

    /// A client that trusts `ours` and shows a certificate of `authority`, which ends in `year`.
    fn shows(&self, authority: &Authority, year: i32) -> ClientTls {
        let files = ["client.pem", "client.key"].map(|name| self.place.path(name));
        authority.sign(&files[0], &files[1], year).unwrap();
        let [cert, key] = files.map(Some);
        ClientTls { ca: Some(self.ours.file.clone()), cert, key }
    }

    async fn ask(&self, tls: ClientTls) -> Result<(), String> {
        ask(&self.handle.url(), tls).await
    }
}

fn options(place: &Place, clients: &Authority) -> Options {
    let mut options = place.options();
    let [cert, key] = ["server.pem", "server.key"].map(|name| place.path(name));
    options.tls = Some(ServerTlsFiles { cert, key, client_ca: Some(clients.file.clone()) });
    options
}

/// A request on a new connection; what goes wrong, with all causes.
async fn ask(url: &str, tls: ClientTls) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    let said = |error: &dyn std::error::Error| {
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
    };
    let channel: Channel = r2o_transport::connect(&endpoint, tls).await.map_err(|error| said(&error))?;
    JobsClient::new(channel).list(ListRequest {}).await.map(drop).map_err(|status| said(&status))
}

#[tokio::test]
async fn who_shows_a_certificate_of_the_authority_is_served() {
    let door = Door::new(VALID).await;
    assert!(door.handle.url().starts_with("https://"));
    door.ask(door.shows(&door.ours, VALID)).await.unwrap();
}

#[tokio::test]
async fn who_shows_none_or_an_expired_or_a_foreign_one_is_refused() {
    let door = Door::new(VALID).await;
    let none = ClientTls { ca: Some(door.ours.file.clone()), ..ClientTls::default() };
    let refused = door.ask(none).await.unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let refused = door.ask(door.shows(&door.ours, EXPIRED)).await.unwrap_err();
    assert!(refused.contains("CertificateExpired"), "{refused}");
    let foreign = Authority::new(&door.place.path(""), "foreign").unwrap();
    door.ask(door.shows(&foreign, VALID)).await.unwrap_err();
    let plain = door.handle.url().replace("https", "http");
    ask(&plain, ClientTls::default()).await.unwrap_err();
    door.ask(door.shows(&door.ours, VALID)).await.expect("others are served as before");
}

#[tokio::test]
async fn a_coordinator_with_a_foreign_or_expired_certificate_is_not_trusted() {
    let door = Door::new(EXPIRED).await;
    let refused = door.ask(door.shows(&door.ours, VALID)).await.unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
    let door = Door::new(VALID).await;
    let foreign = Authority::new(&door.place.path(""), "foreign").unwrap();
    let tls = ClientTls { ca: Some(foreign.file.clone()), ..door.shows(&door.ours, VALID) };
    let refused = door.ask(tls).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer") || refused.contains("BadSignature"), "{refused}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_then_on_and_a_broken_file_changes_nothing() {
    let door = Door::new(EXPIRED).await;
    let tls = door.shows(&door.ours, VALID);
    door.ask(tls.clone()).await.unwrap_err();
    door.ours.sign(&door.place.path("server.pem"), &door.place.path("server.key"), VALID).unwrap();
    door.ask(tls.clone()).await.unwrap();
    std::fs::write(door.place.path("server.pem"), "-----BEGIN NONSENSE-----").unwrap();
    door.ask(tls).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_is_refused_at_the_start_and_the_key_is_not_shown() {
    let place = Place::new();
    let ours = Authority::new(&place.path(""), "ours").unwrap();
    ours.sign(&place.path("server.pem"), &place.path("other.key"), VALID).unwrap();
    ours.sign(&place.path("other.pem"), &place.path("server.key"), VALID).unwrap();
    let refused = Service::start(options(&place, &ours)).await.unwrap_err().to_string();
    assert!(refused.contains("server.pem"), "{refused}");
    std::fs::write(place.path("server.key"), "very secret").unwrap();
    let refused = Service::start(options(&place, &ours)).await.unwrap_err().to_string();
    assert!(refused.contains("server.key") && !refused.contains("very secret"), "{refused}");
}

/// A browser that trusts an authority, and no other.
fn browser(authority: &Authority) -> reqwest::Client {
    let roots = std::fs::read(&authority.file).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&roots).unwrap()]);
    client.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

#[tokio::test]
async fn probes_need_no_certificate() {
    let door = Door::new(VALID).await;
    let (client, web) = (browser(&door.ours), door.handle.web_url().unwrap());
    for probe in ["livez", "readyz"] {
        let answer = client.get(format!("{web}/{probe}")).send().await.unwrap();
        assert!(answer.status().is_success(), "{probe}: {}", answer.status());
    }
}

#[tokio::test]
async fn the_page_is_served_by_tls_alone_and_its_cookie_stays_there() {
    let place = Place::new();
    let ours = Authority::new(&place.path(""), "ours").unwrap();
    ours.sign(&place.path("server.pem"), &place.path("server.key"), VALID).unwrap();
    std::fs::write(place.path("tokens"), "reader r-secret\n").unwrap();
    let handle =
        Service::start(Options { tokens: Some(place.path("tokens")), ..options(&place, &ours) }).await.unwrap();
    let url = handle.web_url().unwrap();
    assert!(url.starts_with("https://"), "{url}");
    let client = browser(&ours);
    let form = client.post(format!("{url}/sign-in")).header("origin", &url);
    let form = form.header("content-type", "application/x-www-form-urlencoded").body("token=r-secret&next=%2F");
    let page = form.send().await.unwrap();
    let cookie = page.headers().get("set-cookie").map_or("", |value| value.to_str().unwrap()).to_owned();
    names(&cookie, &["__Host-r2o=", "Secure"]);
    let page = client.get(&url).header("cookie", cookie.split(';').next().unwrap()).send().await.unwrap();
    names(&page.error_for_status().unwrap().text().await.unwrap(), &["No jobs yet"]);
    let foreign = Authority::new(&place.path(""), "foreign").unwrap();
    let distrusted = browser(&foreign).get(&url).send().await.unwrap_err();
    assert!(distrusted.is_connect(), "{distrusted:?}");
    client.get(url.replace("https", "http")).send().await.expect_err("nothing is served without TLS");
    handle.shutdown().await;
}
