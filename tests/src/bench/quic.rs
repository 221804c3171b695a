//! Floors of the wire: raw quinn with the same TLS, an echo and a transfer
//! that ends up hashed in a file, and nothing of a farm.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, ServerConfig, TransportConfig, VarInt,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt as _;

use super::sample::Samples;

const PIECE: usize = 1 << 20;

/// 64 bytes there and back on an open stream, `runs` times.
///
/// # Errors
/// If loopback QUIC does not work here.
pub fn echoes(runs: usize) -> anyhow::Result<Samples> {
    on_two_runtimes(
        |connection| async move {
            let (mut send, mut receive) = connection.accept_bi().await?;
            let mut buffer = [0; 64];
            while receive.read_exact(&mut buffer).await.is_ok() {
                send.write_all(&buffer).await?;
            }
            Ok(())
        },
        move |connection| async move {
            let (mut send, mut receive) = connection.open_bi().await?;
            let mut samples = Samples::default();
            let mut buffer = [0; 64];
            for _ in 0..runs {
                let start = Instant::now();
                send.write_all(&buffer).await?;
                receive.read_exact(&mut buffer).await?;
                samples.push(start.elapsed());
            }
            Ok(samples)
        },
    )
}

/// Sends the file at `source` over one stream; the other side hashes it as it
/// writes it to `target` and syncs. Returns how long that took.
///
/// # Errors
/// If loopback QUIC or the disk does not work here.
pub fn transfer(source: &Path, target: &Path) -> anyhow::Result<Duration> {
    let (source, target) = (source.to_owned(), target.to_owned());
    on_two_runtimes(
        move |connection| async move {
            let (mut send, receive) = connection.accept_bi().await?;
            let digest = receive_to_file(receive, target).await?;
            send.write_all(digest.as_bytes()).await?;
            send.finish()?;
            // The sender says goodbye; until then the digest may be on its way.
            connection.closed().await;
            Ok(())
        },
        move |connection| async move {
            let start = Instant::now();
            let (mut send, mut receive) = connection.open_bi().await?;
            let mut file = std::fs::File::open(source)?;
            let mut buffer = vec![0; PIECE];
            loop {
                let count = std::io::Read::read(&mut file, &mut buffer)?;
                if count == 0 {
                    break;
                }
                send.write_all(&buffer[..count]).await?;
            }
            send.finish()?;
            let mut digest = [0; 32];
            receive.read_exact(&mut digest).await?;
            let took = start.elapsed();
            connection.close(VarInt::from_u32(0), b"done");
            Ok(took)
        },
    )
}

async fn receive_to_file(mut receive: RecvStream, target: PathBuf) -> anyhow::Result<blake3::Hash> {
    let mut file = tokio::fs::File::create(target).await?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let mut filled = 0;
    loop {
        let count = receive.read(&mut buffer[filled..]).await?;
        filled += count.unwrap_or(0);
        if filled == PIECE || (count.is_none() && filled > 0) {
            hasher.update(&buffer[..filled]);
            file.write_all(&buffer[..filled]).await?;
            filled = 0;
        }
        if count.is_none() {
            break;
        }
    }
    file.flush().await?;
    file.sync_data().await?;
    Ok(hasher.finalize())
}

/// Runs the two sides as two processes would: a runtime of its own for each.
fn on_two_runtimes<S, C, SF, CF, T>(serve: S, call: C) -> anyhow::Result<T>
where
    S: FnOnce(Connection) -> SF + Send + 'static,
    SF: Future<Output = anyhow::Result<()>>,
    C: FnOnce(Connection) -> CF,
    CF: Future<Output = anyhow::Result<T>>,
{
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    let (client, server) = configs()?;
    let (told, address) = std::sync::mpsc::sync_channel::<SocketAddr>(1);
    let serving = std::thread::spawn(move || -> anyhow::Result<()> {
        runtime()?.block_on(async {
            let endpoint = Endpoint::server(server, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            told.send(endpoint.local_addr()?)?;
            let incoming = endpoint.accept().await.context("the endpoint closed")?;
            serve(incoming.await?).await
        })
    });
    let address = address.recv()?;
    let value = runtime()?.block_on(async {
        let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        endpoint.set_default_client_config(client);
        let connection = endpoint.connect(address, "floor")?.await?;
        let value = call(connection.clone()).await?;
        connection.close(VarInt::from_u32(0), b"done");
        endpoint.wait_idle().await;
        anyhow::Ok(value)
    })?;
    serving
        .join()
        .map_err(|_| anyhow::anyhow!("the floor's server panicked"))??;
    Ok(value)
}

fn configs() -> anyhow::Result<(ClientConfig, ServerConfig)> {
    let made = rcgen::generate_simple_self_signed(vec!["floor".to_owned()])?;
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(4 << 20));
    transport.send_window(8 << 20);
    let transport = Arc::new(transport);
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    server.transport_config(transport.clone());
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(transport);
    Ok((client, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_transfer_delivers_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[1]).collect();
        std::fs::write(&source, &bytes).unwrap();
        transfer(&source, &target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), bytes);
        assert_eq!(echoes(10).unwrap().runs(), 10);
    }
}
