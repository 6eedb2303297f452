"""Your own screen: a table of differential expression in any of the forms that people have, or an AnnData file.

`settings` names the file and its columns, or the tool that wrote it (`forms`). `delimited` reads text whatever its
delimiter, encoding and compression, `parquet` and `matrix` the other files, each block by block into the small codes of
`rows`: an int32 per name, an int8 per response. `numbers` turns texts into numbers and refuses those of the wrong kind.
`naming` resolves the names with the lists of `words`, and `tally` counts by name whatever was left out.

Nothing is dropped in silence, and nothing is guessed that would make a label: whatever cannot be read is counted with
its most frequent texts, or refused with one sentence.
"""
