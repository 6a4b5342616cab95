//! Vendor data: what we ask of cloud-init ourselves. It lies below the user's own words, so that
//! none of them is overwritten.

use serde_json::{Value, json};

use super::Seed;

const BOUNDARY: &str = "=====hostel=====";

/// Puts our agent in, whatever the image is: on each boot, before the network, in front of all else
/// that cloud-init does. A unit keeps it running where there is systemd.
const AGENT_SCRIPT: &str = r#"#!/bin/sh
# Hostel's agent: how the host runs programs here without a network.
target=/usr/local/sbin/hostel-agent
mkdir -p /run/hostel-seed /usr/local/sbin
modprobe vmw_vsock_virtio_transport 2>/dev/null
modprobe fuse 2>/dev/null
for label in cidata config-2; do
    device=/dev/disk/by-label/$label
    [ -e "$device" ] || continue
    mount -o ro "$device" /run/hostel-seed 2>/dev/null || continue
    if [ -f /run/hostel-seed/hostel-agent ]; then
        cmp -s /run/hostel-seed/hostel-agent "$target" || {
            cp /run/hostel-seed/hostel-agent "$target.new" && chmod 755 "$target.new" &&
                mv "$target.new" "$target"
        }
    fi
    umount /run/hostel-seed
    break
done
[ -x "$target" ] || exit 0
if [ -d /run/systemd/system ]; then
    if [ ! -f /etc/systemd/system/hostel-agent.service ]; then
        cat >/etc/systemd/system/hostel-agent.service <<EOF
[Unit]
Description=Hostel's agent
DefaultDependencies=no
After=local-fs.target
[Service]
ExecStart=$target
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
EOF
        systemctl daemon-reload
        systemctl enable hostel-agent.service 2>/dev/null
    fi
    systemctl start --no-block hostel-agent.service
else
    "$target" >/dev/null 2>&1 &
fi
"#;

/// The document.
pub fn data(seed: &Seed) -> String {
    let config = format!("#cloud-config\n{:#}\n", config(seed));
    if !seed.with_agent {
        return config;
    }
    let mut text =
        format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n");
    for (kind, part) in [("cloud-config", config.as_str()), ("cloud-boothook", AGENT_SCRIPT)] {
        text.push_str(&format!(
            "--{BOUNDARY}\nMIME-Version: 1.0\nContent-Type: text/{kind}; charset=\"utf-8\"\n\n{part}\n"
        ));
    }
    text + &format!("--{BOUNDARY}--\n")
}

fn config(seed: &Seed) -> Value {
    let mut config = json!({
        "manage_etc_hosts": true,
        "growpart": {"mode": "auto", "devices": ["/"], "ignore_growroot_disabled": false},
        "ssh_authorized_keys": seed.authorized_keys,
    });
    if let Some(user) = &seed.user {
        config["system_info"] = json!({"default_user": {"name": user, "lock_passwd": true,
            "gecos": user, "shell": "/bin/bash", "sudo": ["ALL=(ALL) NOPASSWD:ALL"]}});
    }
    if !seed.packages.is_empty() {
        config["packages"] = json!(seed.packages);
    }
    if let Some(key) = &seed.host_key {
        config["ssh_deletekeys"] = true.into();
        config["ssh_keys"] = json!({"ed25519_private": key.private, "ed25519_public": key.public});
    }
    config
}
