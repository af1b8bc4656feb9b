module penstock.test/goguest

go 1.24
