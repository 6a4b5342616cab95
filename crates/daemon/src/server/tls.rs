//! TLS: clients show certificates of the authority that signed ours, which is all the authority they
//! need, as libvirt has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libvirt_compat::{Code, Error, Origin, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// What the server sends inside the channel once it has accepted a client's certificate.
const ACCEPTED: u8 = 1;

/// The three files of a server.
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    /// All in one folder, or where libvirt has them.
    fn of(folder: Option<&Path>) -> Self {
        match folder {
            Some(folder) => Self {
                authority: folder.join("cacert.pem"),
                certificate: folder.join("servercert.pem"),
                key: folder.join("serverkey.pem"),
            },
            None => Self {
                authority: "/etc/pki/CA/cacert.pem".into(),
                certificate: "/etc/pki/libvirt/servercert.pem".into(),
                key: "/etc/pki/libvirt/private/serverkey.pem".into(),
            },
        }
    }
}

fn failed(what: &str, path: &Path, reason: &dyn std::fmt::Display) -> Error {
    let text = format!("Cannot read {what} '{}': {reason}", path.display());
    Error::new(Code::SystemError, text).from(Origin::Rpc)
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = fs::read(path).map_err(|error| failed(what, path, &crate::files::reason(&error)))?;
    let list: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let list = list.map_err(|error| failed(what, path, &error))?;
    if list.is_empty() {
        return Err(failed(what, path, &"it holds no certificate"));
    }
    Ok(list)
}

/// Reads the certificates; `folder` instead of libvirt's places.
pub fn acceptor(folder: Option<&Path>) -> Result<TlsAcceptor> {
    let files = Files::of(folder);
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA certificate", &files.authority)? {
        roots.add(certificate).map_err(|e| failed("CA certificate", &files.authority, &e))?;
    }
    let own = certificates("server certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| failed("server key", &files.key, &error))?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|error| failed("CA certificate", &files.authority, &error))?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(own, key)
        .map_err(|error| failed("server certificate", &files.certificate, &error))?;
    // libvirt's client reads once and wants the byte: a ticket before it would be an error.
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Agrees with a client, and tells it that its certificate will do.
pub async fn accept(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    stream.write_all(&[ACCEPTED]).await.ok()?;
    stream.flush().await.ok()?;
    Some(stream)
}
