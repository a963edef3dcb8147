package main

import "errors"

func (s *stack) demo() error { return errors.New("not written yet") }
