//! Numbered things, found by number and never mistaken for an earlier one of the same number.

/// Names a thing: its place, and how often the place was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// The place.
    pub index: u32,
    /// How often the place was used before, in 24 bits.
    pub generation: u32,
}

const GENERATIONS: u32 = 1 << 24;

/// Things by number, at most `limit` of them.
#[derive(Debug)]
pub struct Arena<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    limit: usize,
}

impl<T> Arena<T> {
    /// Room for `limit` things.
    pub fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether another one would be refused.
    pub fn is_full(&self) -> bool {
        self.count() >= self.limit
    }

    /// Adds a thing, unless there are too many.
    pub fn insert(&mut self, thing: T) -> Option<Id> {
        if self.is_full() {
            return None;
        }
        let index = if let Some(index) = self.free.pop() {
            index
        } else {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).ok()?
        };
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(thing);
        Some(Id { index, generation: slot.0 })
    }

    /// The thing, while it is there.
    pub fn get(&self, id: Id) -> Option<&T> {
        let (generation, thing) = self.slots.get(id.index as usize)?;
        thing.as_ref().filter(|_| *generation == id.generation)
    }

    /// The thing, while it is there.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let (generation, thing) = self.slots.get_mut(id.index as usize)?;
        thing.as_mut().filter(|_| *generation == id.generation)
    }

    /// Takes a thing out.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        let (generation, thing) = self.slots.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let thing = thing.take()?;
        *generation = (*generation + 1) % GENERATIONS;
        self.free.push(id.index);
        Some(thing)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, (generation, thing))| {
            let index = u32::try_from(index).ok()?;
            Some((Id { index, generation: *generation }, thing.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_numbers_find_nothing() {
        let mut arena = Arena::new(2);
        let first = arena.insert('a').unwrap();
        assert_eq!(arena.remove(first), Some('a'));
        let second = arena.insert('b').unwrap();
        assert_eq!((first.index, arena.get(first)), (0, None));
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&'b'));
        arena.insert('c').unwrap();
        assert_eq!((arena.insert('d'), arena.count()), (None, 2));
        assert_eq!(arena.iter().map(|(_, thing)| *thing).collect::<String>(), "bc");
    }
}
