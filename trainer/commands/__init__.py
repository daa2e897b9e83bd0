"""What the subcommands of `torrefy` do, one module each."""
