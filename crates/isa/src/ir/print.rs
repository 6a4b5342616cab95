//! Listings of a block, for `-d op` and for tests.

use std::fmt;

use super::build::Ir;
use super::lane::Lane;
use super::op::{Code, Op, Repeat};
use super::types::{Cmp, Cond, FlagKind, Value};

impl fmt::Display for Ir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, op) in self.ops().iter().enumerate() {
            writeln!(f, "{index:4} {}", Line(op))?;
        }
        Ok(())
    }
}

struct Line<'a>(&'a Op);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = self.0;
        write!(f, "{}", op.code.info().name)?;
        match op.code {
            Code::Compare => write!(f, ".{:?}", Cmp::from_aux(op.aux))?,
            Code::Condition => write!(f, ".{:?}", Cond::from_aux(op.aux))?,
            Code::Flags => write!(f, ".{:?}", FlagKind::from_aux(op.aux))?,
            Code::Lanes | Code::Packed => write!(f, ".{:?}", Lane::from_aux(op.aux & 0xfff))?,
            _ if op.aux != 0 => write!(f, ".{:x}", op.aux)?,
            _ => {}
        }
        write!(f, " {:?}", op.ty)?;
        match op.code {
            Code::Get | Code::Put | Code::Discard => write!(f, " [{}]", op.a.0)?,
            Code::Const | Code::InsnStart | Code::Exit | Code::ExitIf | Code::Call => {
                write!(f, " {:#x}", op.immediate())?;
            }
            Code::Load | Code::Store | Code::Lea => write!(f, " disp {}", op.displacement())?,
            Code::LaneGet => write!(f, " lane {}", op.b.0)?,
            Code::Repeat => write!(f, " {:?}", Repeat::of(op))?,
            Code::LanePut | Code::Atomic => write!(f, " #{}", op.c.0)?,
            _ => {}
        }
        op.operands().try_for_each(|Value(value)| write!(f, " %{value}"))
    }
}
