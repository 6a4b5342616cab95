//! `view`: a machine's screen, in a viewer of the host.

use std::process::Command;

use crate::arguments::View;
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::machine::State;

/// Programs that show a screen by its address.
const VIEWERS: &[&str] = &["remote-viewer", "gvncviewer", "vncviewer"];

/// `hostel view`.
pub fn run(what: &View) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    let name = machine.name();
    if machine.state != State::Running {
        let failure = Failure::new(format!("'{name}' does not run"));
        return Err(failure.hint(format!("'hostel start {name}' starts it")));
    }
    let text = connection.client.domain_get_xml_desc(machine.domain.clone(), 0)?;
    let live = libvirt_compat::xml::parse(&text, "(domain)").unwrap_or_default();
    let graphics = live.at("devices/graphics").filter(|graphics| graphics.is("type", "vnc"));
    let port = graphics.and_then(|graphics| graphics.attribute("port")?.parse::<u16>().ok());
    let Some(port) = port else {
        let failure = Failure::new(format!("'{name}' has no screen"));
        let hint = format!(
            "'hostel shell {name}' opens a shell, 'hostel logs {name}' shows what \
            it prints; 'virt-install --graphics vnc' makes machines with one"
        );
        return Err(failure.hint(hint));
    };
    if what.address {
        println!("vnc://127.0.0.1:{port}");
        return Ok(0);
    }
    for viewer in VIEWERS {
        let address = match *viewer {
            "remote-viewer" => format!("vnc://127.0.0.1:{port}"),
            _ => format!("127.0.0.1:{}", port.saturating_sub(5900)),
        };
        if let Ok(mut child) = Command::new(viewer).arg(address).spawn() {
            let ended = child.wait();
            ended.map_err(|error| Failure::new(format!("{viewer} broke")).because(&error))?;
            return Ok(0);
        }
    }
    let failure = Failure::new("There is no viewer on this host");
    let hint =
        format!("install one of {}; the screen is at 127.0.0.1:{port} (VNC)", VIEWERS.join(", "));
    Err(failure.hint(hint))
}
