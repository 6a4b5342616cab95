//! What works today, each claim with the test that proves it.
//!
//! The README's table is this one: `cargo xtask claims` writes it, tidy refuses a stale one, and
//! `cargo xtask ci` fails when a claim's test is missing or failed, and says so when it was skipped.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// A sentence in the README and the test behind it, by the name the test runner prints.
pub struct Claim {
    pub what: &'static str,
    pub test: &'static str,
}

pub const CLAIMS: &[Claim] = &[
    Claim {
        what: "`hostel launch`, exec, transfer, ports, restart, delete, recover, without root or KVM",
        test: "launch::the_first_minutes_of_a_newcomer",
    },
    Claim {
        what: "What listens in a machine is forwarded to the host by itself",
        test: "reach::what_listens_in_a_machine_is_forwarded_by_itself",
    },
    Claim {
        what: "A machine's console is typed on, from its first line on",
        test: "reach::a_console_is_typed_on_from_the_boot_on_and_left_by_its_key",
    },
    Claim {
        what: "Images come from a catalogue, in parallel pieces, and are checked",
        test: "reach::images_of_a_users_own_catalogue_are_found_fetched_and_checked",
    },
    Claim {
        what: "Mounts, forwards, snapshots, clones, all the first ten minutes in a terminal",
        test: "friendly::the_first_ten_minutes_on_a_terminal",
    },
    Claim {
        what: "Cloud-init's configurations are obeyed, wrong ones told by line and column",
        test: "friendly::wrong_configurations_are_told_by_line_and_column",
    },
    Claim {
        what: "Whatever is killed during a launch, `list` and `delete` can clear what is left",
        test: "friendly::whatever_is_killed_nothing_is_left_that_cannot_be_cleared",
    },
    Claim {
        what: "Our own `virsh` says what libvirt's says",
        test: "clients::virsh_says_what_the_real_one_says",
    },
    Claim {
        what: "Our own `virsh` changes devices, jobs and snapshots of running domains as libvirt's does",
        test: "virsh::virsh_acts_on_running_domains_as_the_real_one_does",
    },
    Claim {
        what: "`--format json` answers as docs/answers.md describes",
        test: "answers::answers_are_as_the_page_says",
    },
    Claim {
        what: "The command lines of multipass and UVtool are understood",
        test: "clients::multipass_and_uvtool_are_understood",
    },
    Claim {
        what: "libvirt's virsh manages a machine of our emulator through our daemon",
        test: "monitor::the_reference_virsh_manages_a_machine_of_our_emulator",
    },
    Claim {
        what: "VNC clients see what the guest's screen shows, and type",
        test: "screen::vncdotool_sees_the_same_and_types",
    },
    Claim {
        what: "TigerVNC logs in by TLS, types, and shows the same picture",
        test: "outside::screens::tigervnc_logs_in_by_tls_and_shows_the_same_picture",
    },
    Claim {
        what: "noVNC in Chromium logs in, types, and shows the same picture",
        test: "outside::browser::novnc_logs_in_and_shows_the_same_picture",
    },
    Claim {
        what: "What Debian's kernel plays on HD audio is in the wav file",
        test: "outside::sound::what_the_kernel_plays_is_in_the_file_and_codecs_look_as_in_qemu",
    },
    Claim {
        what: "Folders of the host in a guest by 9p, in all of QEMU's security models",
        test: "outside::shares::files_in_9p_shares_behave_in_all_security_models",
    },
    Claim {
        what: "virtiofsd's folders and passt's networks, by vhost-user",
        test: "outside::shares::virtiofs_comes_and_goes_and_a_lost_daemon_does_not_stop_the_machine",
    },
    Claim {
        what: "passt is started and ends with the machine",
        test: "outside::networks::passt_is_started_and_ends_with_its_machine",
    },
    Claim {
        what: "Debian's kernel mounts a folder of the host that samba serves",
        test: "outside::samba::a_guest_mounts_the_folder_that_samba_gives",
    },
    Claim {
        what: "Debian's guest agent tells, runs and freezes",
        test: "outside::agent::debians_agent_tells_runs_and_freezes",
    },
    Claim {
        what: "QMP plugs disks and network cards into a running machine and out of it",
        test: "monitor::devices_come_and_go_with_their_back_ends",
    },
    Claim {
        what: "Debian 12's kernel boots to busybox on the translator, and powers off",
        test: "machine::debian_12_boots_to_busybox_and_powers_off",
    },
    Claim {
        what: "Debian 13's kernel likewise, on two CPUs",
        test: "machine::debian_13_boots_to_busybox_on_two_cpus",
    },
    Claim {
        what: "gdb debugs a booted kernel, and sees what it sees with the reference",
        test: "pc::debugger::gdb_sees_the_same_as_with_the_reference",
    },
    Claim {
        what: "Guests read the reference's processor models, features and topologies",
        test: "pc::processors::guests_read_the_models_and_topologies_of_the_reference",
    },
    Claim {
        what: "A running machine is saved, moved to another process, and goes on",
        test: "pc::saved::a_running_machine_moves_through_a_file_with_four_processors",
    },
    Claim {
        what: "systemd, UEFI on four processors, memtest86+ and Debian's installer start",
        test: "pc::systems::systemd_comes_to_a_login_prompt",
    },
    Claim {
        what: "SeaBIOS and small guests run on KVM, interrupts and resets included",
        test: "kvm::seabios_speaks",
    },
    Claim {
        what: "`hostel doctor` says what this host can do, by a guest that it runs on KVM and without",
        test: "accelerators::the_doctor_says_of_each_thing_how_it_is",
    },
    Claim {
        what: "Translated x86 instructions agree with the host's processor",
        test: "every_encoding_agrees_with_the_host",
    },
    Claim {
        what: "32-bit x86 Linux programs behave as natively",
        test: "linux_user::an_i386_program_behaves_as_natively",
    },
    Claim {
        what: "x87 and MMX give what the host's processor gives",
        test: "linux_user::old_units::functions_of_the_x87_are_those_of_this_processor_to_the_last_bit",
    },
    Claim {
        what: "Numbers at the x87's edges give what the host's processor gives, with all flags",
        test: "linux_user::old_units::numbers_at_the_edges_give_what_this_processor_gives_with_all_its_flags",
    },
    Claim {
        what: "Random sequences on the host's x87 agree with the software of its helper",
        test: "random_sequences_of_the_x87_agree",
    },
    Claim {
        what: "Storms of signals, children and 64 threads lose nothing, on four architectures",
        test: "linux_user::architectures::storms_lose_nothing_ten_times_in_a_row",
    },
    Claim {
        what: "gdb debugs a foreign program of each architecture",
        test: "linux_user::architectures::gdb_sees_a_program_of_each_architecture",
    },
    Claim {
        what: "Foreign programs start by name, in chroots too, through `hostel binfmt`",
        test: "linux_user::binfmt::foreign_programs_start_by_name",
    },
    Claim {
        what: "gcc, node, a Go and a Rust program of another architecture run",
        test: "linux_user::programs::programs_of_other_languages_run",
    },
    Claim {
        what: "Python of another architecture passes its own tests",
        test: "linux_user::programs::python_of_arm64_passes_its_own_tests",
    },
    Claim {
        what: "Floating point inside guests is what a software implementation says",
        test: "linux_user::floats::floats_of_aarch64_are_what_the_standard_says",
    },
    Claim {
        what: "AArch64 Linux programs behave as under the reference",
        test: "linux_user::an_aarch64_program_behaves_as_under_the_reference",
    },
    Claim {
        what: "RISC-V Linux programs behave as under the reference",
        test: "linux_user::a_riscv64_program_behaves_as_under_the_reference",
    },
    Claim {
        what: "Disks written by qemu-img and by ours in turn stay the same",
        test: "images::random_writes_by_both_give_the_same_disk",
    },
    Claim {
        what: "QEMU's own image tests pass with our tools",
        test: "iotests::qcow2_as_qemu_tests_it",
    },
    Claim {
        what: "A killed writer loses nothing that was flushed",
        test: "killed::qcow2_survives",
    },
    Claim {
        what: "Block jobs copy, merge and back up disks of running machines",
        test: "block_jobs::a_disk_moves_while_it_is_written",
    },
    Claim {
        what: "libvirt's virsh prints the same with our daemon as with libvirtd",
        test: "daemon::reference::virsh_prints_the_same_as_with_libvirtd",
    },
    Claim {
        what: "A running VM survives a kill of the daemon and is adopted again",
        test: "daemon::qemu::a_running_domain_survives_the_daemon",
    },
    Claim {
        what: "virt-install imports a disk through our daemon",
        test: "daemon::qemu::virt_install_imports_a_disk",
    },
    Claim {
        what: "virt-manager 5.0's own tests pass through our daemon, but for nine that are named",
        test: "daemon::virt_manager::virt_managers_own_tests_pass",
    },
    Claim {
        what: "17 of go-libvirt's 19 integration tests pass, as with libvirtd",
        test: "daemon::go_libvirt::go_libvirts_integration_tests_pass",
    },
    Claim {
        what: "NAT networks with DHCP, DNS and one transaction of nftables",
        test: "daemon::networks::the_default_network_gives_addresses_names_and_a_way_out",
    },
    Claim {
        what: "A machine of a system daemon that was taken over reaches no other",
        test: "daemon::confinement::a_machine_that_was_taken_over_reaches_no_other",
    },
    Claim {
        what: "Checkpoints and backups are those of libvirtd",
        test: "daemon::reference::checkpoints_and_backups_are_those_of_libvirtd",
    },
    Claim {
        what: "Without QEMU, the daemon runs machines with the emulator of its own",
        test: "daemon::qemu::without_qemu_the_daemon_has_an_emulator_of_its_own",
    },
];

/// The rows that the README shows, too.
const FIRST: &[&str] = &[
    "launch::the_first_minutes_of_a_newcomer",
    "reach::what_listens_in_a_machine_is_forwarded_by_itself",
    "friendly::whatever_is_killed_nothing_is_left_that_cannot_be_cleared",
    "clients::virsh_says_what_the_real_one_says",
    "clients::multipass_and_uvtool_are_understood",
    "outside::browser::novnc_logs_in_and_shows_the_same_picture",
    "outside::shares::files_in_9p_shares_behave_in_all_security_models",
    "machine::debian_12_boots_to_busybox_and_powers_off",
    "pc::saved::a_running_machine_moves_through_a_file_with_four_processors",
    "pc::systems::systemd_comes_to_a_login_prompt",
    "kvm::seabios_speaks",
    "every_encoding_agrees_with_the_host",
    "linux_user::programs::programs_of_other_languages_run",
    "linux_user::programs::python_of_arm64_passes_its_own_tests",
    "linux_user::binfmt::foreign_programs_start_by_name",
    "iotests::qcow2_as_qemu_tests_it",
    "killed::qcow2_survives",
    "daemon::reference::virsh_prints_the_same_as_with_libvirtd",
    "daemon::virt_manager::virt_managers_own_tests_pass",
    "daemon::networks::the_default_network_gives_addresses_names_and_a_way_out",
    "daemon::confinement::a_machine_that_was_taken_over_reaches_no_other",
];

const BEGIN: &str = "<!-- claims: written by `cargo xtask claims` -->\n";
const END: &str = "<!-- /claims -->\n";

/// The page that has all rows.
pub const PAGE: &str = "docs/proven.md";

/// Runs the task.
pub fn run(arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "claims takes no argument");
    for name in ["README.md", PAGE] {
        let path = workspace::root().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("Cannot read {name}"))?;
        let place = text.split_once(BEGIN);
        let (before, rest) = place.with_context(|| format!("{name} has no place for claims"))?;
        let end = rest.split_once(END);
        let (_, after) = end.with_context(|| format!("The claims of {name} have no end"))?;
        fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table(name)))?;
    }
    Ok(())
}

/// A complaint when a page shows another table than [`CLAIMS`].
pub fn stale(name: &str, text: &str) -> Option<String> {
    let (_, rest) = text.split_once(BEGIN)?;
    let shown = rest.split_once(END).map_or("", |(shown, _)| shown);
    (shown != table(name)).then(|| format!("{name}: stale claims, run 'cargo xtask claims'"))
}

fn table(name: &str) -> String {
    let shown = |claim: &&Claim| name == PAGE || FIRST.contains(&claim.test);
    let rows = CLAIMS.iter().filter(shown);
    let rows = rows.map(|Claim { what, test }| format!("| {what} | `{test}` |\n"));
    format!("| what works | proven by the test |\n|-|-|\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_readme_shows_first_is_claimed() {
        for test in FIRST {
            assert!(CLAIMS.iter().any(|claim| claim.test == *test), "{test}");
        }
    }
}
