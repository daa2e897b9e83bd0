"""Reading on from where a database reader stands."""

from trainer.data.database import DatabaseReader


def read(reader: DatabaseReader, count: int) -> list[bytes]:
    values = []
    for _ in range(count):
        values.append(reader.value)
        reader.advance()
    return values
