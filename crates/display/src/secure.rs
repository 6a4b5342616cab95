//! TLS over a connection, by certificates.
//!
//! Anonymous TLS is not spoken: nobody knows who is at its other end.

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::socket::{Address, Socket};

/// What is encrypted at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file is not what it should be.
    #[error("Cannot read the {what}: {reason}")]
    Unreadable {
        /// Which.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The parts do not make a whole.
    #[error("The certificate cannot be used: {0}")]
    Unusable(String),
}

/// What a server proves itself with.
#[derive(Clone, Debug)]
pub struct Credentials(Arc<ServerConfig>);

impl Credentials {
    /// Of files in PEM: a certificate and what signed it, its key, and, if clients must have
    /// certificates of their own, who signs those and which are revoked.
    pub fn x509(
        certificate: &[u8],
        key: &[u8],
        clients: Option<(&[u8], Option<&[u8]>)>,
    ) -> Result<Self, CredentialsError> {
        let chain = certificates(certificate, "server's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|error| unreadable("server's key", &error))?;
        let provider = Arc::new(ring::default_provider());
        let unusable =
            |error: &dyn std::error::Error| CredentialsError::Unusable(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| unusable(&error))?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some((signer, revoked)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(signer, "clients' certificate authority")? {
                    roots.add(certificate).map_err(|error| unusable(&error))?;
                }
                let lists: Result<Vec<_>, _> =
                    CertificateRevocationListDer::pem_slice_iter(revoked.unwrap_or(b"")).collect();
                let lists = lists.map_err(|error| unreadable("revocation list", &error))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier = verifier.with_crls(lists).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
            }
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| unusable(&error))?;
        // Viewers do not resume, and TigerVNC's waits for ever when a ticket and its first answer
        // come in one packet.
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }
}

fn unreadable(what: &'static str, error: &dyn std::error::Error) -> CredentialsError {
    CredentialsError::Unreadable { what, reason: error.to_string() }
}

fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| unreadable(what, &error))?;
    match all.is_empty() {
        true => Err(CredentialsError::Unreadable { what, reason: "there is none".to_owned() }),
        false => Ok(all),
    }
}

/// A connection, in the open or, from some point on, not.
pub struct Channel {
    socket: Socket,
    tls: OnceLock<Tls>,
}

/// Lock order: `out`, then `connection`. Nobody reads or writes the socket under `connection`, so
/// that a client that takes nothing can still be heard.
struct Tls {
    connection: Mutex<ServerConnection>,
    /// Held from encrypting to sending, so that what is sent is in order.
    out: Mutex<()>,
    /// What was decrypted and not read yet.
    plain: Mutex<Vec<u8>>,
}

impl Channel {
    /// In the open.
    pub fn new(socket: Socket) -> Self {
        Self { socket, tls: OnceLock::new() }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Address {
        self.socket.peer()
    }

    /// See the socket's.
    pub fn close(&self) {
        self.socket.close();
    }

    /// See the socket's.
    pub fn patience(&self, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
        self.socket.patience(read, write)
    }

    /// From now on nothing passes in the open. `early` was read from the socket before.
    pub fn secure(&self, credentials: &Credentials, early: &[u8]) -> io::Result<()> {
        let connection = ServerConnection::new(Arc::clone(&credentials.0));
        let connection = connection.map_err(io::Error::other)?;
        let tls = Tls {
            connection: Mutex::new(connection),
            out: Mutex::default(),
            plain: Mutex::default(),
        };
        let taken = tls.take(early);
        self.answer(&tls)?;
        taken?;
        while tls.connection.lock().is_handshaking() {
            let mut raw = [0; 16 << 10];
            let count = self.socket.read(&mut raw)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = tls.take(&raw[..count]);
            // What is wrong the client is told first.
            self.answer(&tls)?;
            taken?;
        }
        _ = self.tls.set(tls);
        Ok(())
    }

    /// Sends what the protocol itself has to say.
    fn answer(&self, tls: &Tls) -> io::Result<()> {
        if !tls.connection.lock().wants_write() {
            return Ok(());
        }
        let _out = tls.out.lock();
        let wire = tls.wire()?;
        self.socket.write(&wire)
    }

    /// Reads what has come.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = self.tls.get() else { return self.socket.read(buffer) };
        loop {
            {
                let mut plain = tls.plain.lock();
                if !plain.is_empty() {
                    let count = plain.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&plain[..count]);
                    plain.drain(..count);
                    return Ok(count);
                }
            }
            let mut raw = [0; 16 << 10];
            match self.socket.read(&mut raw)? {
                0 => return Ok(0),
                count => tls.take(&raw[..count])?,
            }
            self.answer(tls)?;
        }
    }

    /// Writes all of it.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = self.tls.get() else { return self.socket.write(bytes) };
        let _out = tls.out.lock();
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let count = tls.connection.lock().writer().write(rest)?;
                rest = &rest[count..];
                let wire = tls.wire()?;
                self.socket.write(&wire)?;
            }
        }
        Ok(())
    }
}

impl Tls {
    /// Decrypts.
    fn take(&self, mut raw: &[u8]) -> io::Result<()> {
        let mut connection = self.connection.lock();
        while !raw.is_empty() {
            connection.read_tls(&mut raw)?;
            let state = connection.process_new_packets().map_err(io::Error::other)?;
            let count = state.plaintext_bytes_to_read();
            let mut plain = self.plain.lock();
            let start = plain.len();
            plain.resize(start + count, 0);
            connection.reader().read_exact(&mut plain[start..])?;
        }
        Ok(())
    }

    /// What is to be sent.
    fn wire(&self) -> io::Result<Vec<u8>> {
        let mut connection = self.connection.lock();
        let mut wire = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut wire)?;
        }
        Ok(wire)
    }
}
