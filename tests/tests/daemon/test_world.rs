//! `test:///default` through our daemon against the one that libvirt's library has inside.

use super::fixture::{Daemon, virsh};
use crate::need;

/// Each line is one virsh; both sides must print the same.
const TOUR: &[&str] = &[
    "list --all",
    "domid test",
    "domuuid test",
    "domname 1",
    "net-uuid default",
    "vol-list default-pool",
    "iface-list --all",
    "nodedev-dumpxml computer",
    "nodeinfo",
    "maxvcpus",
    "version",
    "suspend test; domstate test --reason; resume test",
    "destroy test; list --all; start test; domstate test --reason",
    "shutdown test; domstate test --reason",
    "vcpucount test",
    "snapshot-create-as test s1; snapshot-list test --name; snapshot-current test --name; \
     snapshot-create-as test s2; snapshot-list test --tree; snapshot-delete test s1; \
     snapshot-list test --name",
    "desc test hello --title; desc test --title; list --all --title",
    "metadata test http://x/ --key k --set '<a/>'; metadata test http://x/",
    "dumpxml nope",
    "domstate nope",
    "net-info nope",
    "pool-info nope",
    "vol-info nope --pool default-pool",
    "start test",
    "define /nonexistent",
    "snapshot-info test nope",
    "domrename test other",
    "net-destroy default; net-start default",
    "pool-destroy default-pool; pool-start default-pool",
    "pool-refresh default-pool",
    "vol-create-as default-pool v1 1G; vol-list default-pool; vol-info v1 default-pool; \
     vol-path v1 default-pool; vol-delete v1 default-pool",
    "send-key test KEY_A",
];

#[test]
fn virsh_sees_the_same_test_world_as_in_the_library() {
    need!("virsh");
    let mut different = Vec::new();
    for commands in TOUR {
        // A fresh world on both sides.
        let daemon = Daemon::start();
        let (_, reference) = virsh("test:///default", commands);
        let (_, ours) = virsh(&daemon.uri("test", "/default"), commands);
        if ours != reference {
            different.push(format!("{commands}\n--- libvirt\n{reference}--- ours\n{ours}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn an_unknown_hypervisor_is_refused_as_libvirt_does() {
    need!("virsh");
    let daemon = Daemon::start();
    let (ok, text) = virsh(&daemon.uri("bhyve", "/system"), "list");
    assert!(!ok && text.contains("no connection driver available for bhyve:///system"), "{text}");
    let (ok, text) = virsh(&daemon.uri("qemu", "/system"), "list");
    assert!(
        !ok && text.contains("unexpected QEMU URI path '/system', try qemu:///session"),
        "{text}"
    );
}
