module tokencheck

go 1.24
