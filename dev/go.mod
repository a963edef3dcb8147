module hallpass.dev/dev/stack

go 1.26
